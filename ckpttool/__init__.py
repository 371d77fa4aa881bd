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
    from ckpttool.errors import (
        CheckpointError,
        ConversionError,
        CorruptionError,
        FormatError,
        NotFoundError,
        NotSupportedError,
    )
    from ckpttool.formats.hdf5 import write_hdf5
    from ckpttool.formats.meta_graph import write_meta_graph
    from ckpttool.formats.opening import open_checkpoint, open_graph
    from ckpttool.model.checkpoint import Checkpoint, Variable
    from ckpttool.model.graph import MetaGraph
    from ckpttool.transforms.devices import device_mentions, strip_devices
    from ckpttool.transforms.variables import select

__version__ = "0.1.0"

_HOMES = {
    "Checkpoint": "model.checkpoint",
    "CheckpointError": "errors",
    "ConversionError": "errors",
    "CorruptionError": "errors",
    "FormatError": "errors",
    "MetaGraph": "model.graph",
    "NotFoundError": "errors",
    "NotSupportedError": "errors",
    "Variable": "model.checkpoint",
    "device_mentions": "transforms.devices",
    "open_checkpoint": "formats.opening",
    "open_graph": "formats.opening",
    "select": "transforms.variables",
    "strip_devices": "transforms.devices",
    "write_hdf5": "formats.hdf5",
    "write_meta_graph": "formats.meta_graph",
}

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "ConversionError",
    "CorruptionError",
    "FormatError",
    "MetaGraph",
    "NotFoundError",
    "NotSupportedError",
    "Variable",
    "device_mentions",
    "open_checkpoint",
    "open_graph",
    "select",
    "strip_devices",
    "write_hdf5",
    "write_meta_graph",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
