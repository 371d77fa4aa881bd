"""What keeps a fetch from running, found before anything runs: what is not fed, waits for ever, or has no value.

An op with control inputs, or behind a Switch, may be in a branch that is not taken: then it is not in the way.
"""

from collections.abc import Collection, Iterable, Mapping

from ckpttool.analysis.graphs.needs import must_be_fed
from ckpttool.analysis.graphs.pipelines import gets_next, iterator_makers, source_of, waits
from ckpttool.model.nodes import ASSIGN_OPS, VARIABLE_OPS, Node, op_of, tensor_name
from ckpttool.model.texts import to_bytes

# Types of ops that only ask whether a variable has a value.
_ASKERS = ("IsVariableInitialized", "VarIsInitializedOp")


def unfed(nodes: Mapping[str, Node], ops: Iterable[str], filled: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """Of ops that must run, the placeholders to be fed; and the ops that take from an input pipeline without data.

    The pipelines in `filled` have data.
    """
    running = sorted(ops)
    placeholders = [name for name in running if must_be_fed(nodes, nodes[name])]
    return placeholders, [name for name in running if waits(nodes, nodes[name], filled)]


def waiting(nodes: Mapping[str, Node], ops: Iterable[str], filled: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """Of ops that must run, those that surely take from an input pipeline without data; and those that may.

    The latter do so if the branch that they may be in is taken.
    """
    _, found = unfed(nodes, ops, filled)
    perhaps = {op: _is_conditional(nodes, nodes[op]) for op in found}
    return [op for op in found if not perhaps[op]], [op for op in found if perhaps[op]]


def _is_conditional(nodes: Mapping[str, Node], node: Node) -> bool:
    sources = [nodes.get(op_of(text)) for text in node.inputs]
    is_controlled = any(text.startswith("^") for text in node.inputs)
    return is_controlled or any(source is not None and "Switch" in source.type for source in sources)


def require_fed(
    nodes: Mapping[str, Node],
    ops: Collection[str],
    fed: Collection[str] = (),
    keys: Mapping[str, str] | None = None,
    filled: Collection[str] = (),
) -> None:
    """Raises ValueError if ops that must run need a placeholder that nobody feeds, or what nobody has filled.

    Args:
        nodes: the graph's ops, by name.
        ops: those that must run.
        fed: full names of tensors that are given.
        keys: another name of an input, such as its key in a signature → the tensor's name.
        filled: the queues and iterators that have something to give.
    """
    called = {tensor: f"{key} ({tensor})" for key, tensor in (keys or {}).items()}
    placeholders, _ = unfed(nodes, ops)
    names = [called.get(f"{op}:0", f"{op}:0") for op in placeholders if not _is_conditional(nodes, nodes[op])]
    if names:
        it, its = ("it", "its dtype and shape") if len(names) == 1 else ("them", "their dtypes and shapes")
        raise ValueError(f"{', '.join(names)} must be fed: the result depends on {it} · ckpttool io shows {its}")
    surely, _ = waiting(nodes, ops, filled)
    if surely:
        raise ValueError(_why_waiting(nodes, surely[0], ops, fed))


def _why_waiting(nodes: Mapping[str, Node], name: str, ops: Collection[str], fed: Collection[str]) -> str:
    """What an op waits for, and what to do."""
    node = nodes[name]
    given = [tensor for tensor in fed if op_of(tensor) == name]
    if given:
        taken = {tensor_name(text) for op in ops for text in nodes[op].inputs if op_of(text) == name}
        if lacking := sorted(taken - set(given)):
            return f"{given[0]} is fed, and {', '.join(lacking)} of the same op is needed too: feed it as well"
        return (
            f"{name} is fed, and runs all the same, because an op waits for it by a control input"
            f" · `ckpttool freeze --inputs {name}:0` makes a graph in which a placeholder stands for it"
        )
    feed = f"feed {name}:0 (and its other outputs), or what is computed from them"
    if not gets_next(node.type):
        what = f"{name} ({node.type}) takes from an input pipeline that is not running: it would wait for ever"
        return f"{what} · {feed}"
    makers = iterator_makers(nodes).get(source_of(nodes, node), [])
    first = f"; or run {' or '.join(makers[:3])} before, in Python" if makers else ""
    return f"{name} ({node.type}) takes from an iterator that has no data · {feed}{first}"


def read_variables(nodes: Mapping[str, Node], ops: Iterable[str], fed: Collection[str] = ()) -> set[str]:
    """Of ops that must run, the variables whose values are needed: not those that are only written."""
    found = set()
    for node in (nodes[op] for op in ops):
        first = 1 if node.type in ASSIGN_OPS else 0
        for text in node.operands[first:] if node.type not in _ASKERS else ():
            source = nodes.get(op_of(text))
            if source is not None and source.type in VARIABLE_OPS and tensor_name(text) not in fed:
                found.add(source.name)
    return found


def written_variables(nodes: Mapping[str, Node], ops: Iterable[str]) -> set[str]:
    """The variables that ops give a value to when they are run."""
    writers = (nodes[op] for op in ops if op in nodes and nodes[op].type in ASSIGN_OPS)
    return {op_of(writer.inputs[0]) for writer in writers if writer.inputs}


def shared_state(nodes: Mapping[str, Node], variable: str) -> tuple[bytes, bytes]:
    """What a variable's values are known by in a session: two ops of one shared name are one variable."""
    attr = nodes[variable].message.attr if variable in nodes else {}
    container, shared = (attr[name].s if name in attr else b"" for name in ("container", "shared_name"))
    return container, shared or to_bytes(variable)
