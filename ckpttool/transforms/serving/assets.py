"""The files that a graph reads once it is loaded: the vocabularies of its tables.

    Const "/data/vocab.txt" ──▶ InitializeTableFromTextFileV2(table, filename)

A SavedModel has them in `assets/`; its loader feeds the constant with the path that the file has by then. An
AssetFileDef says which constant: tensor_info (1) has the tensor's name, filename (2) that of the file.

(tensorflow/core/ops/lookup_ops.cc; core/protobuf/meta_graph.proto; python/saved_model/loader_impl.py)
"""

import posixpath
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ckpttool import proto
from ckpttool.analysis.graphs.needs import origin
from ckpttool.model.graph import ASSETS, MetaGraph, require_graph
from ckpttool.model.nodes import Node, op_of
from ckpttool.model.texts import to_text
from ckpttool.transforms.new_ops import free_name, with_entry
from ckpttool.wire.message import DROP, edit

_FILEPATHS = "asset_filepaths"
_READERS = ("InitializeTableFromTextFile", "InitializeTableFromTextFileV2")


class AssetFile(NamedTuple):
    """A file that a graph reads.

    Attributes:
        tensor: the constant with its path.
        path: as the graph has it; in a SavedModel, `assets/NAME`.
        ops: the ops that read it.
    """

    tensor: str
    path: str
    ops: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its name, whichever system's separators the path has."""
        return re.split(r"[/\\]", self.path)[-1]

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be called: its path, its name, the constant."""
        return self.path, self.name, op_of(self.tensor), self.tensor


def asset_files(graph: MetaGraph) -> list[AssetFile]:
    """The files from which tables are initialized, and those of the collection `asset_filepaths`."""
    require_graph(graph)
    nodes = graph.by_name
    readers: dict[str, list[str]] = {}
    for node in nodes.values():
        if node.type in _READERS and len(node.inputs) > 1:
            readers.setdefault(origin(nodes, node.inputs[1])[0], []).append(node.name)
    known = {tensor: posixpath.join("assets", file) for tensor, file in graph.assets.items()}
    listed = graph.collections[_FILEPATHS].members if _FILEPATHS in graph.collections else []
    names = [*readers, *(op_of(name) for name in [*listed, *known] if isinstance(name, str))]
    found = []
    for name in dict.fromkeys(names):
        path = known.get(f"{name}:0") or _text(nodes.get(name))
        if path:
            found.append(AssetFile(f"{name}:0", path, tuple(readers.get(name, ()))))
    return found


def _text(node: Node | None) -> str:
    """The text of a constant of one string; "" for anything else."""
    if node is None or node.type != "Const" or "value" not in node.message.attr:
        return ""
    texts = node.message.attr["value"].tensor.string_val
    return to_text(bytes(texts[0])) if len(texts) == 1 else ""


def file_names(places: Mapping[AssetFile, str]) -> dict[str, str]:
    """Tensor → name of its file in `assets/`: as in the graph, but equal names are told apart as TensorFlow does.

    Args:
        places: where each file is.
    """
    names: dict[str, str] = {}
    taken = set[str]()
    for file, place in places.items():
        # A message can't hold bytes that are not UTF-8, and no file is called `..`.
        base = file.name.encode(errors="replace").decode()
        wanted = base if base.strip(".") else "asset"
        if place not in names:
            names[place] = free_name(wanted, taken)
            taken.add(names[place])
    return {file.tensor: names[place] for file, place in places.items()}


def with_assets(data: bytes, names: Mapping[str, str]) -> bytes:
    """A MetaGraphDef whose assets are these, by tensor, and no others."""
    members: Any = proto.message_class("CollectionDef")()
    for tensor, name in names.items():
        asset = proto.message_class("AssetFileDef")(filename=name)
        asset.tensor_info.name = tensor
        type_url = "type.googleapis.com/tensorflow.AssetFileDef"
        members.any_list.value.add(type_url=type_url, value=proto.serialize(asset))
    collection = proto.serialize(members) if names else None
    return with_entry(edit(data, {6: DROP}), 4, ASSETS, collection)
