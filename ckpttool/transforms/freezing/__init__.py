"""A frozen graph: what gives the outputs, with constants in place of variables.

    x ─▶ MatMul ─▶ Softmax        x ─▶ MatMul ─▶ Softmax
           ▲                             ▲
    W ─▶ W/read    W ─▶ train …   W ─▶ W/read          W: Const

`handles` finds where the variables go, `pruning` what the outputs need, `stored` which values belong to which variable;
`rewriting` makes ops and functions without variables, `constants` the constants. All other ops keep their bytes.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from ckpttool import proto
from ckpttool.analysis.graphs.needs import require_distinct, require_output
from ckpttool.analysis.graphs.pipelines import stand_ins
from ckpttool.analysis.graphs.tables import fillers
from ckpttool.errors import NotFoundError, NotSupportedError, located
from ckpttool.model.arguments import Shape
from ckpttool.model.checkpoint import Checkpoint, require_checkpoint
from ckpttool.model.dtypes import dtype_of
from ckpttool.model.graph import MetaGraph, require_graph
from ckpttool.model.names import listed
from ckpttool.model.nodes import PLACEHOLDERS, require_name, set_shape
from ckpttool.transforms.freezing.body import Body, Output
from ckpttool.transforms.freezing.handles import FROZEN_OPS, Library, Trace
from ckpttool.transforms.freezing.pruning import needed, output_of
from ckpttool.transforms.freezing.rewriting import Names, Pieces, Rewriter
from ckpttool.transforms.freezing.stored import Stored, StoredVariables
from ckpttool.transforms.graph_edits import meta_graph_data
from ckpttool.transforms.new_ops import new_op
from ckpttool.wire.message import DROP, LENGTH, MAX_SIZE, edit, fields, length_prefix, message_field, values_of


class Frozen(NamedTuple):
    """A frozen graph, and what became of the one it was made from.

    Attributes:
        graph: the frozen graph, a GraphDef.
        ops: how many ops it has, functions' not counted.
        variables: how many variables became constants.
        nbytes: the bytes of their values.
        placeholders: tensor that is fed → the placeholder that stands for it.
        dropped: the updates of variables that were removed, since ops only waited for them.
        fillers: ops to run before others, since they fill tables.
        assets: tensor to feed when these run → the file whose path it takes.
        initial: local variables that are not stored, and have their initial values.
    """

    graph: MetaGraph
    ops: int
    variables: int
    nbytes: int
    placeholders: dict[str, str]
    dropped: list[str]
    fillers: list[str]
    assets: dict[str, str]
    initial: list[str]


def freeze(
    graph: MetaGraph,
    checkpoint: Checkpoint | None,
    outputs: Sequence[str],
    *,
    inputs: Collection[str] = (),
    keep_devices: bool = False,
) -> Frozen:
    """The part of a graph that gives the outputs, with its variables as constants.

    Its outputs are bit for bit those of a session with restored variables, as long as neither session optimizes the
    graph: optimizers multiply constants beforehand, and round differently.

        >>> frozen = ckpttool.freeze(graph, checkpoint, ["softmax"])
        >>> ckpttool.write_meta_graph(frozen.graph, "frozen.pb")

    Args:
        graph: a graph, read from any file.
        checkpoint: the variables' values; None: it has no variables.
        outputs: names of ops or tensors; one or more.
        inputs: names of tensors to feed: placeholders replace the ops that give them.
        keep_devices: keep the ops' devices.

    Raises:
        ValueError: no outputs.
        TypeError: a text instead of a list of names, or something else instead of a name.
        NotFoundError: there is no such op or tensor, or the checkpoint lacks a variable.
        NotSupportedError: what the outputs need can't be frozen, or takes more than 2 GiB.
        ConversionError: a variable is of another dtype or shape in the checkpoint.
        CorruptionError: the graph or the values are damaged.
    """
    require_graph(graph)
    if checkpoint is not None:
        require_checkpoint(checkpoint)
    _require_names(outputs, inputs)
    require_distinct(graph)
    with located(graph.path):
        try:
            return _Freezing(graph, checkpoint, outputs, inputs, keep_devices).frozen()
        except RecursionError:
            raise NotSupportedError("its functions call each other too deeply") from None


def _require_names(outputs: Sequence[str], inputs: Collection[str]) -> None:
    for what, names in (("outputs", outputs), ("inputs", inputs)):
        if isinstance(names, str):
            raise TypeError(f"{what} is a list of names: [{names!r}], not {names!r}")
        for name in names:
            require_name(name)
    if not outputs:
        raise ValueError("no outputs: a graph without any has no ops either")


class _Freezing:
    def __init__(
        self,
        graph: MetaGraph,
        checkpoint: Checkpoint | None,
        outputs: Sequence[str],
        inputs: Collection[str],
        keep_devices: bool,
    ) -> None:
        graph_def = graph.graph_def
        self._graph, self._checkpoint, self._keep_devices = graph, checkpoint, keep_devices
        self._nodes = list(graph_def.node)
        self._library = Library(graph_def.library.function, graph.op_def)
        self._body = Body(self._nodes, graph.op_def)
        self._trace = Trace(self._body, self._library)
        self._stored = StoredVariables(graph, self._body, self._library, checkpoint)
        self._found: dict[str, Stored] = {}
        fed = self._fed(inputs)
        self._assets = _assets(graph, self._body)
        fed += [output for output in self._assets if self._body.nodes[output.op].op == "VarHandleOp"]
        self._needed = needed(self._trace, self._outputs_of(outputs), fed, fillers(graph))
        self._placeholders = self._name_placeholders()
        self._rewriter = Rewriter(self._library, self._values)
        self._names = Names(self._is_gone, self._renamed)

    def _fed(self, inputs: Collection[str]) -> list[Output]:
        """The fed tensors that get new placeholders: a placeholder's does only if a pipeline gives its default."""
        fed = self._outputs_of(inputs)
        ops = {output.op: self._body.nodes[output.op].op for output in fed}
        piped: list[str] = []
        if "PlaceholderWithDefault" in ops.values():
            piped = stand_ins(self._graph.by_name, self._graph.by_name)
        return [output for output in fed if ops[output.op] not in PLACEHOLDERS or output.op in piped]

    def _outputs_of(self, names: Iterable[str]) -> list[Output]:
        found = []
        for name in names:
            found.append(output_of(self._body, name))
            require_output(self._graph, name)
        return found

    def frozen(self) -> Frozen:
        self._require_values()
        pieces, ops = self._pieces()
        _require_size(sum(map(len, pieces)))
        graph = self._graph.replace(data=b"".join(pieces), root="GraphDef", text=None, number=0, facts=None)
        nbytes = sum(stored.nbytes for stored in self._found.values())
        fed = {f"{output.op}:{output.number}": name for output, name in self._placeholders.items()}
        dropped = [*self._needed.dropped, *self._rewriter.dropped]
        fillers, initial = self._needed.fillers, list(self._stored.initial)
        return Frozen(graph, ops, len(self._found), nbytes, fed, dropped, fillers, self._assets_to_feed, initial)

    def _pieces(self) -> tuple[Pieces, int]:
        """The GraphDef in pieces (ops, the functions that they need, the rest), and the number of ops."""
        made: Pieces = []
        library: Pieces = []
        rest: Pieces = []
        data, nodes, ops = _graph_def(self._graph), iter(self._nodes), 0
        for number, wire_type, start, value, end in fields(data):
            if (number, wire_type) == (1, LENGTH):
                for op in self._made(next(nodes), data[value:end]):
                    ops += 1
                    made += [length_prefix(1, sum(map(len, op))), *op]
            elif (number, wire_type) == (2, LENGTH):
                library.append(data[value:end])
            elif number != _DEBUG_INFO:
                rest.append(data[start:end])
        functions = b"".join(self._functions(b"".join(library)))
        return [*made, *([message_field(2, functions)] if functions else []), *rest], ops

    @property
    def _assets_to_feed(self) -> dict[str, str]:
        ops = self._needed.ops | self._placed
        return {f"{output.op}:{output.number}": file for output, file in self._assets.items() if output.op in ops}

    def _require_values(self) -> None:
        """Finds the values of all variables; raises if some are missing, or they take too much."""
        variables = [node for node in self._nodes if node.name in self._needed.ops and node.op in FROZEN_OPS]
        found = {node.name: self._stored.find(node) for node in variables}
        missing = [name for name, stored in found.items() if stored is None]
        if missing:
            raise _missing_error(missing, self._checkpoint)
        self._found = {name: stored for name, stored in found.items() if stored is not None}
        _require_size(sum(stored.nbytes for stored in self._found.values()))

    def _values(self, node: Any) -> Stored:
        """The values of a variable; for a variable inside a function, they are looked up only now."""
        if self._found.get(node.name) is None:
            stored = self._stored.find(node)
            if stored is None:
                raise _missing_error([node.name], self._checkpoint)
            self._found[node.name] = stored
        return self._found[node.name]

    def _name_placeholders(self) -> dict[Output, str]:
        """Tensor → name of its placeholder: that of the op for its first output, unless the op is still needed."""
        names: dict[Output, str] = {}
        taken = set[str]()
        for output in sorted(self._needed.fed):
            wanted = output.op if output.number == 0 else f"{output.op}_{output.number}"
            name, number = wanted, 0
            while name in taken or name in self._needed.ops or (name != output.op and name in self._body.nodes):
                number += 1
                name = f"{wanted}_fed_{number}"
            names[output] = name
            taken.add(name)
        return names

    @cached_property
    def _placeholders_of(self) -> dict[str, list[tuple[Output, str]]]:
        found: dict[str, list[tuple[Output, str]]] = {}
        for output, name in self._placeholders.items():
            found.setdefault(output.op, []).append((output, name))
        return found

    @cached_property
    def _placed(self) -> set[str]:
        return set(self._placeholders.values())

    @cached_property
    def _renamed(self) -> dict[str, str | None]:
        """Old name → new name of the inputs that are fed."""
        found: dict[str, str | None] = {}
        for output, name in self._placeholders.items():
            found[f"{output.op}:{output.number}"] = name
            if output.number == 0:
                found[output.op] = name
            if output.op not in self._needed.ops:
                found.setdefault(f"^{output.op}", f"^{name}")
        return found

    def _is_gone(self, op: str) -> bool:
        return op not in self._needed.ops and op not in self._placed

    def _made(self, node: Any, data: bytes) -> Iterator[Pieces]:
        """What replaces an op in the frozen graph."""
        for output, name in self._placeholders_of.get(node.name, ()):
            yield [self._placeholder(node, output, name)]
        if node.name in self._needed.ops:
            yield from self._rewriter.node(self._trace, node, data, self._names, keep_device=self._keep_devices)

    def _placeholder(self, node: Any, output: Output, name: str) -> bytes:
        dtype, shape = self._known(node, output)
        made = new_op(name, "Placeholder")
        made.attr["dtype"].type = dtype
        set_shape(made.attr["shape"].shape, shape)
        return proto.serialize(made)

    def _known(self, node: Any, output: Output) -> tuple[int, Shape]:
        """The dtype (a number) and the shape of a fed tensor."""
        held = self._trace.held.get(output)
        if held is not None:
            return held.dtype, None
        dtype, shape = self._graph.tensor(f"{node.name}:{output.number}")
        number = dtype.number if dtype is not None else self._said(node, output)
        if not number:
            what = f"the graph does not say of what dtype {node.name}:{output.number} is: it can't become a placeholder"
            raise NotSupportedError(what, hint="feed another tensor near it")
        return dtype_of(number).base.number, shape

    def _said(self, node: Any, output: Output) -> int:
        """The dtype, from an op that takes the tensor."""
        for user in self._body.users(node.name):
            attr = self._body.nodes[user].attr
            if self._body.operands[user][:1] == [output] and "T" in attr and attr["T"].type:
                return int(attr["T"].type)
        return 0

    def _functions(self, library: bytes) -> Iterator[bytes]:
        """The functions that are needed, each in the place of the one that it was made from."""
        made: dict[str, list[bytes | None]] = {}
        for old, data in self._rewriter.functions.values():
            made.setdefault(old, []).append(data)
        functions = iter(self._graph.graph_def.library.function)
        for number, wire_type, _, value, end in fields(library):
            if (number, wire_type) == (1, LENGTH):
                for function in made.get(next(functions).signature.name, ()):
                    kept = library[value:end] if function is None else function
                    yield message_field(1, kept if self._keep_devices else edit(kept, {3: {4: DROP}}))


_DEBUG_INFO = 5


def _assets(graph: MetaGraph, body: Body) -> dict[Output, str]:
    """A SavedModel's assets: tensor or variable with the path of a file → the file."""
    found = {}
    for name, file in graph.assets.items():
        tensor = body.output(name)
        found[tensor] = file
        for user in body.users(tensor.op):
            if body.nodes[user].op == "AssignVariableOp":
                found[body.operands[user][0]] = file
    return {output: file for output, file in found.items() if output.op in body.nodes}


def _graph_def(graph: MetaGraph) -> bytes:
    """The bytes of the GraphDef."""
    return graph.data if graph.root == "GraphDef" else b"".join(values_of(meta_graph_data(graph), 2))


def _require_size(nbytes: int) -> None:
    if nbytes > MAX_SIZE:
        what = f"the frozen graph would take {nbytes:,} bytes, and a protobuf message can have {MAX_SIZE:,}"
        raise NotSupportedError(
            what, hint="choose fewer outputs, or keep the checkpoint: a SavedModel has no such limit"
        )


def _missing_error(names: Sequence[str], checkpoint: Checkpoint | None) -> NotFoundError:
    lacking = listed(names, 10)
    if checkpoint is None:
        what = f"the outputs need variables, and no checkpoint is beside: {lacking}"
        return NotFoundError(what, hint="--checkpoint PATH says where it is")
    what = f"the checkpoint {checkpoint.path} has no values of variables that the outputs need: {lacking}"
    return NotFoundError(what, hint="another --checkpoint has them, or --inputs feeds them")
