"""Whether a graph and a checkpoint are of one model: what the graph's saver would restore, and what there is."""

from difflib import get_close_matches

from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.dtypes import dtype_of
from ckpttool.model.findings import Finding
from ckpttool.model.graph import MetaGraph, split_tensor
from ckpttool.transforms.saver_lists import Restored, SaverLists

_SEARCHED = 10_000


def disagreements(graph: MetaGraph, checkpoint: Checkpoint) -> list[Finding]:
    """What TensorFlow would not restore: variables that are missing, or of another dtype or shape.

    What the checkpoint has beyond that is nothing wrong.
    """
    file = split_tensor(graph.message.saver_def.filename_tensor_name)[0]
    restored = SaverLists(list(graph.graph_def.node), file).restored()
    shapes = {variable.name: variable.shape for variable in graph.variables}
    found = (_finding(each, checkpoint, shapes.get(each.key)) for each in restored)
    return [Finding("graph", what, graph.path, name) for name, what in dict(filter(None, found)).items()]


def _finding(
    restored: Restored, checkpoint: Checkpoint, declared: tuple[int | None, ...] | None
) -> tuple[str, str] | None:
    key = restored.key
    if key not in checkpoint:
        near = get_close_matches(key, checkpoint, 3) if len(checkpoint) < _SEARCHED else []
        hint = f"; near names: {', '.join(near)}" if near else ""
        return key, f"the graph restores it, and the checkpoint has no such variable{hint}"
    stored = checkpoint[key]
    wanted = dtype_of(restored.dtype)
    if restored.dtype and wanted.name.removesuffix("_ref") != stored.dtype.name:
        return key, f"the graph restores {wanted.name}, the checkpoint has {stored.dtype.name}"
    shape = _full_shape(restored.spec) if restored.spec else declared
    if shape is not None and not _agree(shape, stored.shape):
        text = ",".join("?" if size is None else str(size) for size in shape)
        return key, f"the graph restores [{text}], the checkpoint has {list(stored.shape)}"
    return None


def _full_shape(spec: str) -> tuple[int | None, ...] | None:
    """The shape that a slice is of: "10 4 0,5:-" is of [10, 4]. (core/util/tensor_slice_util.h)"""
    *sizes, _ = spec.split(" ")
    try:
        return tuple(int(size) for size in sizes)
    except ValueError:
        return None


def _agree(declared: tuple[int | None, ...], stored: tuple[int, ...]) -> bool:
    return len(declared) == len(stored) and all(a in (None, b) for a, b in zip(declared, stored, strict=True))
