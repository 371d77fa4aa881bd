"""A frozen graph as a checkpoint: its constants, by the names of their ops.

Freezing puts a constant in the place of each variable, under the variable's name. A graph has other constants too, axes
and shapes, and only names tell them apart. A graph that has variables is not frozen: its values are in a checkpoint.

(tensorflow/python/framework/convert_to_constants.py, graph_util_impl.py)
"""

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from ckpttool.errors import located
from ckpttool.model.arguments import get_shape
from ckpttool.model.boxes import Selection
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.dtypes import dtype_of
from ckpttool.model.graph import MetaGraph
from ckpttool.model.nodes import VARIABLE_OPS
from ckpttool.model.slices import ByteRange, Slice, whole_slice
from ckpttool.model.tensors import MOST_BYTES, numbers_of, texts_of
from ckpttool.model.variable import Source, Variable

if TYPE_CHECKING:
    import numpy as np

FORMAT = "TensorFlow graph (constants)"


def is_frozen(graph: MetaGraph) -> bool:
    """Whether no values of a graph are in a checkpoint: it has no variables, and no saver, which tables have too."""
    has_variables = any(node.type in VARIABLE_OPS for node in graph.nodes)
    return not has_variables and not graph.message.saver_def.restore_op_name


def constants_of(graph: MetaGraph) -> Checkpoint | None:
    """The constants of a frozen graph, as a checkpoint; None if it is not frozen, or has none."""
    if not is_frozen(graph):
        return None
    source, variables, warnings = _Constants(graph), dict[str, Variable](), []
    for node in graph.nodes:
        if node.type != "Const" or "value" not in node.message.attr:
            continue
        tensor = node.message.attr["value"].tensor
        shape = get_shape(tensor.tensor_shape)
        if shape is None or None in shape:
            warnings.append(f"{node.name} is passed over: a constant without a shape")
            continue
        sizes = tuple(size for size in shape if size is not None)
        if prod(sizes) > MOST_BYTES:
            warnings.append(f"{node.name} is passed over: {prod(sizes):,} values are more than a graph can have")
            continue
        variables[node.name] = Variable(node.name, dtype_of(tensor.dtype), sizes, source, node.name)
    path = graph.path or ""
    return Checkpoint(variables, path=path, format=FORMAT, files=[path], warnings=warnings) if variables else None


class _Constants(Source):
    """The source of constants. A variable's key is the name of the op."""

    def __init__(self, graph: MetaGraph) -> None:
        self._graph, self._path = graph, graph.path or ""

    def _tensor(self, variable: Variable) -> Any:
        return self._graph.by_name[variable.key].message.attr["value"].tensor

    def slices(self, variable: Variable) -> Sequence[Slice]:
        itemsize = variable.dtype.itemsize
        nbytes = self._tensor(variable).ByteSize() if itemsize is None else prod(variable.shape) * itemsize
        return [whole_slice(variable.shape, ByteRange(self._path, 0, nbytes, None))]

    def arrays(self, variable: Variable, piece: Slice, boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        with located(self._path, variable.name):
            array = numbers_of(self._tensor(variable), variable.dtype, variable.shape)
        for box in boxes:
            whole: Any = (*box, ...)  # The ellipsis keeps a scalar an array.
            yield array[whole]

    def strings(self, variable: Variable, piece: Slice) -> list[bytes]:
        with located(self._path, variable.name):
            return texts_of(self._tensor(variable), variable.shape)
