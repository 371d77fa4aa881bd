"""Rewrites ops and functions for constants in place of variables.

An op that reads a variable takes the value instead; an op that hands a variable on hands on the value. A function that
is called with a variable gets an argument of the value's type, and another name, so that it is not mistaken for the old
one where both are loaded. All else stays as it is, byte for byte, except for names of ops that are gone.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from ckpttool import proto
from ckpttool.errors import CorruptionError, NotFoundError, NotSupportedError
from ckpttool.model.texts import to_bytes, to_text
from ckpttool.transforms.freezing.body import Output
from ckpttool.transforms.freezing.constants import constant
from ckpttool.transforms.freezing.handles import FROZEN_OPS, PLAIN_PASSES, READS, Call, Held, Kinds, Library, Trace
from ckpttool.transforms.freezing.pruning import require_droppable
from ckpttool.transforms.freezing.reads import BECOMES, gather_axis
from ckpttool.transforms.freezing.stored import Stored
from ckpttool.transforms.graph_edits import without_ties
from ckpttool.transforms.new_ops import free_name
from ckpttool.wire.message import DROP, Rule, edit

Pieces = list[bytes]
"""The bytes of a NodeDef, in pieces."""

# Inside functions, outputs have names. Type of a replaced op → name of its first output, which becomes `output`.
_OUTPUT_NAMES = {"ReadVariableOp": "value", "VarHandleOp": "resource", "Variable": "ref", "VariableV2": "ref"}
_OUTPUT_NAMES |= dict.fromkeys(("IsVariableInitialized", "VarIsInitializedOp"), "is_initialized")
# Attributes about a handle, which would be wrong about a value.
_ABOUT_HANDLES = ("_output_shapes", "_handle_dtypes", "_handle_shapes", "_read_only_resource_inputs")


class Names:
    """What became of the names of ops.

    Args:
        is_gone: whether an op was removed.
        renamed: old name → new name of inputs; None: it is gone.
    """

    def __init__(self, is_gone: Callable[[str], bool], renamed: Mapping[str, str | None]) -> None:
        self.is_gone, self.renamed = is_gone, renamed

    def mended(self, node: Any, data: bytes) -> bytes:
        """The NodeDef with the new names of its inputs, without control inputs from, or ties to, ops that are gone."""
        rules: dict[int, Rule] = {}
        if any(self._input(text) != text for text in node.input):
            rules[3] = self._operand
        # Most ops have no ties.
        if "_class" in node.attr:
            rules[5] = lambda entry: without_ties(entry, self._is_gone_op)
        return edit(data, rules) if rules else data

    def _input(self, text: str) -> str | None:
        if text.startswith("^") and text not in self.renamed and self.is_gone(text[1:]):
            return None
        return self.renamed.get(text, text)

    def _operand(self, value: bytes) -> bytes | None:
        new = self._input(to_text(value))
        return None if new is None else to_bytes(new)

    def _is_gone_op(self, value: bytes) -> bool:
        return self.is_gone(to_text(value))


class Rewriter:
    """Rewrites the ops of a graph, and the functions that they need.

    Attributes:
        functions: the functions to keep: new name → old name, and the new FunctionDef's bytes; None: the old ones.
        dropped: updates of variables in functions, which are removed.
    """

    def __init__(self, library: Library, find: Callable[[Any], Stored]) -> None:
        self.functions: dict[str, tuple[str, bytes | None]] = {}
        self.dropped: list[str] = []
        self._library, self._find = library, find
        self._names: dict[tuple[str, Kinds], str] = {}
        self._taken, self._entered = set(library.functions), set[str]()

    def node(self, trace: Trace, node: Any, data: bytes, names: Names, *, keep_device: bool) -> Iterator[Pieces]:
        """What an op becomes: an op, and others that it needs.

        Args:
            trace: the variables in its graph or function.
            node: its NodeDef.
            data: the NodeDef's bytes.
            names: what became of the names that it may contain.
            keep_device: leave the op on its device.
        """
        if node.op in FROZEN_OPS:
            yield self._constant(node, names, keep_device)
            return
        changed = self._changed(trace, node)
        if changed is not None:
            if changed.op == "GatherV2" != node.op:
                axis = gather_axis(node, trace.body)
                yield [names.mended(axis, proto.serialize(axis))]
            node, data = changed, proto.serialize(changed)
        data = names.mended(node, data)
        yield [edit(data, {4: DROP}) if node.device and not keep_device else data]

    def _constant(self, node: Any, names: Names, keep_device: bool) -> Pieces:
        waits_for = [text for text in node.input if text.startswith("^") and not names.is_gone(text[1:])]
        return constant(node.name, waits_for, node.device if keep_device else "", self._find(node))

    def _changed(self, trace: Trace, node: Any) -> Any:
        """The NodeDef of what an op becomes; None if it stays what it is."""
        if node.name not in trace.touched and not self._library.functions:
            return None
        inputs, call = trace.inputs(node.name), self._library.call(node)
        if (
            not inputs
            and call is None
            and not any(attr.HasField("func") or attr.list.func for attr in node.attr.values())
        ):
            return None
        new = proto.message_class("NodeDef")()
        new.CopyFrom(node)
        if inputs and node.op in READS:
            BECOMES[node.op](new, next(iter(inputs.values())), trace.body)
        elif trace.passes(node):
            _pass_on(new, inputs)
        elif call is not None:
            self._call(trace, new, call, inputs)
        for attr in [attr for name, attr in new.attr.items() if call is None or name not in call.functions]:
            self._rename_functions(attr)
        return None if new == node else new

    def _call(self, trace: Trace, node: Any, call: Call, inputs: Mapping[int, Held]) -> None:
        kinds = trace.kinds(node, call)
        returned = trace.outputs(node.name)
        if any(kinds) or returned:
            _retype(node, call.inputs, {number: kind for number, kind in enumerate(kinds) if kind})
            _retype(node, call.outputs, {number: held.dtype for number, held in returned.items()})
            _forget(node)
            shapes = node.attr["output_shapes"].list.shape if "output_shapes" in node.attr else ()
            for number in returned:
                if number < len(shapes):
                    _make_unknown(shapes[number])
        if not call.functions:
            node.op = self.specialized(node.op, kinds)
        for name in call.functions:
            if name in node.attr:
                for function in (node.attr[name].func, *node.attr[name].list.func):
                    if function.name:
                        function.name = self.specialized(function.name, kinds)

    def _rename_functions(self, attr: Any) -> None:
        """Renames functions that an attribute names for other uses than a call: they are called without variables."""
        for function in (attr.func, *attr.list.func) if attr.HasField("func") or attr.list.func else ():
            if function.name in self._library.functions:
                count = len(self._library.functions[function.name].signature.input_arg)
                function.name = self.specialized(function.name, (0,) * count)

    def specialized(self, name: str, kinds: Kinds) -> str:
        """The name of the function for arguments of these kinds; a new one is made unless the old one will do."""
        if name not in self._library.functions:
            raise NotFoundError(f"the graph has no function named {name}")
        if (name, kinds) not in self._names:
            if name in self._entered:
                raise NotSupportedError(f"the function {name} calls itself, or one that calls it")
            trace = self._library.trace(name, kinds)
            self._entered.add(name)
            function = self._specialize(trace)
            self._entered.remove(name)
            if function == trace.body.function:
                self._names[name, kinds] = name
                self.functions[name] = (name, None)
            else:
                new = self._names[name, kinds] = function.signature.name = self._free(name)
                self.functions[new] = (name, proto.serialize(function))
        return self._names[name, kinds]

    def _free(self, name: str) -> str:
        new = free_name(f"{name}_frozen", self._taken)
        self._taken.add(new)
        return new

    def _specialize(self, trace: Trace) -> Any:
        """A FunctionDef with its variables frozen, under its old name."""
        body = trace.body
        require_droppable(trace, f"in the function {body.function.signature.name}, ")
        self.dropped += trace.updates
        made = proto.message_class("FunctionDef")()
        made.CopyFrom(body.function)
        _retype_signature(made, trace)
        renamed = _renamed_outputs(trace)
        names = Names(trace.updates.__contains__, renamed)
        nodes = []
        for node in [node for node in body.function.node_def if node.name not in trace.updates]:
            data = proto.serialize(node)
            made_of = self.node(trace, node, data, names, keep_device=True)
            nodes += [proto.message_class("NodeDef").FromString(b"".join(pieces)) for pieces in made_of]
        if nodes != list(made.node_def):
            del made.node_def[:]
            made.node_def.extend(nodes)
        for output, text in list(made.ret.items()):
            made.ret[output] = renamed.get(text) or text
        _drop_control_outputs(made, trace.updates)
        return made


def _pass_on(node: Any, inputs: Mapping[int, Held]) -> None:
    node.op = PLAIN_PASSES.get(node.op, node.op)
    if all(held.is_reference for held in inputs.values()):
        return
    _retype(node, "T", {number: held.dtype for number, held in inputs.items()})
    _forget(node)


def _retype(node: Any, name: str, dtypes: Mapping[int, int]) -> None:
    """Sets dtypes in an attribute: at their places in a list of types, or as its only type."""
    if not dtypes or name not in node.attr:
        return
    attr = node.attr[name]
    if attr.HasField("list"):
        if max(dtypes) >= len(attr.list.type):
            raise CorruptionError(f"the op {node.name} has more inputs or outputs than types in {name}")
        for number, dtype in dtypes.items():
            attr.list.type[number] = dtype
    else:
        attr.type = next(iter(dtypes.values()))


def _forget(node: Any) -> None:
    """Removes attributes about handles."""
    for name in _ABOUT_HANDLES:
        node.attr.pop(name, None)
    node.ClearField("experimental_type")


def _make_unknown(shape: Any) -> None:
    shape.Clear()
    shape.unknown_rank = True


def _retype_signature(function: Any, trace: Trace) -> None:
    """Gives a function's arguments and outputs the types of values."""
    arguments, outputs = function.signature.input_arg, function.signature.output_arg
    for number, held in enumerate(trace.held.get(Output(argument.name, 0)) for argument in arguments):
        if held is None:
            continue
        _retype_argument(arguments[number], held.dtype)
        function.resource_arg_unique_id.pop(number, None)
        if number in function.arg_attr:
            for name in _ABOUT_HANDLES:
                function.arg_attr[number].attr.pop(name, None)
        if "_input_shapes" in function.attr and number < len(function.attr["_input_shapes"].list.shape):
            _make_unknown(function.attr["_input_shapes"].list.shape[number])
    for number, held in enumerate(trace.returned()):
        if held is not None and not held.is_reference:
            _retype_argument(outputs[number], held.dtype)


def _retype_argument(argument: Any, dtype: int) -> None:
    argument.type = dtype
    argument.ClearField("handle_data")
    argument.ClearField("experimental_full_type")


def _renamed_outputs(trace: Trace) -> dict[str, str | None]:
    """The new names of inputs in a function, for outputs that were renamed and updates that are gone (None)."""
    found: dict[str, str | None] = {f"^{name}": None for name in trace.updates}
    for name, node in trace.body.nodes.items():
        old = _OUTPUT_NAMES.get(node.op)
        if old and (node.op in FROZEN_OPS or trace.inputs(name)):
            found |= {f"{name}:{old}:0": f"{name}:output:0", f"{name}:{old}": f"{name}:output"}
    return found


def _drop_control_outputs(function: Any, gone: Collection[str]) -> None:
    for name in [name for name, op in function.control_ret.items() if op in gone]:
        del function.control_ret[name]
        if name in function.signature.control_output:
            function.signature.control_output.remove(name)
