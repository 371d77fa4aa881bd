"""Look into TensorFlow checkpoints and graphs, and convert them, without TensorFlow.

    >>> import ckpttool
    >>> checkpoint = ckpttool.open_checkpoint("model.ckpt")
    >>> {name: variable.shape for name, variable in checkpoint.items()}
    >>> checkpoint["dense/kernel"].numpy()
    >>> ckpttool.write_hdf5(checkpoint, "model.h5")

Names are loaded when they are first used: importing ckpttool imports neither NumPy nor h5py.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ckpttool.analysis.graphs.endpoints import Endpoint, endpoints
    from ckpttool.analysis.values.comparison import Comparison, compare
    from ckpttool.analysis.values.difference import Difference
    from ckpttool.analysis.values.statistics import Statistics, statistics_of
    from ckpttool.errors import (
        CheckpointError,
        ConversionError,
        CorruptionError,
        FormatError,
        NotFoundError,
        NotSupportedError,
    )
    from ckpttool.formats.bundle.writing import write_bundle
    from ckpttool.formats.checkpoint_state import CheckpointState, add_to_checkpoint_state, read_checkpoint_state
    from ckpttool.formats.hdf5 import write_hdf5
    from ckpttool.formats.listing import checkpoints_in
    from ckpttool.formats.locate import Located, locate
    from ckpttool.formats.meta_graph import write_meta_graph
    from ckpttool.formats.npy import write_npy
    from ckpttool.formats.npz import write_npz
    from ckpttool.formats.opening import open_checkpoint, open_graph
    from ckpttool.formats.plan import Planned
    from ckpttool.formats.safetensors import write_safetensors
    from ckpttool.formats.saved_model.writing import write_saved_model
    from ckpttool.formats.tensor_slices.writing import write_tensor_slices
    from ckpttool.formats.verifying import Verified, verify
    from ckpttool.model.arguments import Outputs, Tensor
    from ckpttool.model.checkpoint import Checkpoint
    from ckpttool.model.collections import Collection
    from ckpttool.model.dtypes import DType
    from ckpttool.model.findings import Finding
    from ckpttool.model.graph import GraphVariable, MetaGraph
    from ckpttool.model.in_memory import from_arrays
    from ckpttool.model.nodes import Node
    from ckpttool.model.object_graph import ObjectGraph
    from ckpttool.model.signatures import Signature
    from ckpttool.model.slices import ByteRange, Slice
    from ckpttool.model.variable import Variable
    from ckpttool.runtime.imported import ImportedGraph
    from ckpttool.transforms.averaging import average
    from ckpttool.transforms.casting import Casts, Loss, cast
    from ckpttool.transforms.collections import edit_collections
    from ckpttool.transforms.devices import Mention, device_mentions, strip_devices
    from ckpttool.transforms.freezing import Frozen, freeze
    from ckpttool.transforms.serving import Marks, Servable, servable
    from ckpttool.transforms.serving.assets import AssetFile, asset_files
    from ckpttool.transforms.variables import drop_slots, rename, select, use_moving_averages

__version__ = "0.1.0"

_HOMES = {
    "AssetFile": "transforms.serving.assets",
    "ByteRange": "model.slices",
    "Casts": "transforms.casting",
    "Checkpoint": "model.checkpoint",
    "CheckpointError": "errors",
    "CheckpointState": "formats.checkpoint_state",
    "Collection": "model.collections",
    "Comparison": "analysis.values.comparison",
    "ConversionError": "errors",
    "CorruptionError": "errors",
    "DType": "model.dtypes",
    "Difference": "analysis.values.difference",
    "Endpoint": "analysis.graphs.endpoints",
    "Finding": "model.findings",
    "FormatError": "errors",
    "Frozen": "transforms.freezing",
    "GraphVariable": "model.graph",
    "ImportedGraph": "runtime.imported",
    "Located": "formats.locate",
    "Loss": "transforms.casting",
    "Marks": "transforms.serving",
    "Mention": "transforms.devices",
    "MetaGraph": "model.graph",
    "Node": "model.nodes",
    "NotFoundError": "errors",
    "NotSupportedError": "errors",
    "ObjectGraph": "model.object_graph",
    "Outputs": "model.arguments",
    "Planned": "formats.plan",
    "Servable": "transforms.serving",
    "Signature": "model.signatures",
    "Slice": "model.slices",
    "Statistics": "analysis.values.statistics",
    "Tensor": "model.arguments",
    "Variable": "model.variable",
    "Verified": "formats.verifying",
    "add_to_checkpoint_state": "formats.checkpoint_state",
    "asset_files": "transforms.serving.assets",
    "average": "transforms.averaging",
    "cast": "transforms.casting",
    "checkpoints_in": "formats.listing",
    "compare": "analysis.values.comparison",
    "device_mentions": "transforms.devices",
    "drop_slots": "transforms.variables",
    "edit_collections": "transforms.collections",
    "endpoints": "analysis.graphs.endpoints",
    "freeze": "transforms.freezing",
    "from_arrays": "model.in_memory",
    "locate": "formats.locate",
    "open_checkpoint": "formats.opening",
    "open_graph": "formats.opening",
    "read_checkpoint_state": "formats.checkpoint_state",
    "rename": "transforms.variables",
    "select": "transforms.variables",
    "servable": "transforms.serving",
    "statistics_of": "analysis.values.statistics",
    "strip_devices": "transforms.devices",
    "use_moving_averages": "transforms.variables",
    "verify": "formats.verifying",
    "write_bundle": "formats.bundle.writing",
    "write_hdf5": "formats.hdf5",
    "write_meta_graph": "formats.meta_graph",
    "write_npy": "formats.npy",
    "write_npz": "formats.npz",
    "write_safetensors": "formats.safetensors",
    "write_saved_model": "formats.saved_model.writing",
    "write_tensor_slices": "formats.tensor_slices.writing",
}

__all__ = [
    "AssetFile",
    "ByteRange",
    "Casts",
    "Checkpoint",
    "CheckpointError",
    "CheckpointState",
    "Collection",
    "Comparison",
    "ConversionError",
    "CorruptionError",
    "DType",
    "Difference",
    "Endpoint",
    "Finding",
    "FormatError",
    "Frozen",
    "GraphVariable",
    "ImportedGraph",
    "Located",
    "Loss",
    "Marks",
    "Mention",
    "MetaGraph",
    "Node",
    "NotFoundError",
    "NotSupportedError",
    "ObjectGraph",
    "Outputs",
    "Planned",
    "Servable",
    "Signature",
    "Slice",
    "Statistics",
    "Tensor",
    "Variable",
    "Verified",
    "add_to_checkpoint_state",
    "asset_files",
    "average",
    "cast",
    "checkpoints_in",
    "compare",
    "device_mentions",
    "drop_slots",
    "edit_collections",
    "endpoints",
    "freeze",
    "from_arrays",
    "locate",
    "open_checkpoint",
    "open_graph",
    "read_checkpoint_state",
    "rename",
    "select",
    "servable",
    "statistics_of",
    "strip_devices",
    "use_moving_averages",
    "verify",
    "write_bundle",
    "write_hdf5",
    "write_meta_graph",
    "write_npy",
    "write_npz",
    "write_safetensors",
    "write_saved_model",
    "write_tensor_slices",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    # What is imported to find the names is nobody's to complete.
    return sorted({name for name in globals() if name.startswith("__")} | {*__all__})
