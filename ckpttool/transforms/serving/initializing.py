"""What must be run once after a graph's variables are restored: tables are filled, local variables set.

A loader runs one op for all of that, the one in the collection `saved_model_main_op`.

(tensorflow/python/saved_model/loader_impl.py get_init_op; tensorflow/cc/saved_model/loader_util.cc GetInitOp)
"""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from ckpttool import proto
from ckpttool.analysis.graphs.initializers import INIT_SIGNATURE, MAIN_OP, listed_ops, local_initializers, main_ops
from ckpttool.analysis.graphs.needs import needed_ops
from ckpttool.analysis.graphs.running import unfed
from ckpttool.analysis.graphs.tables import STATIC_TABLES, TABLE, fillers
from ckpttool.errors import NotSupportedError
from ckpttool.model.graph import MetaGraph
from ckpttool.model.nodes import Node, op_of
from ckpttool.transforms.new_ops import free_name, new_op, with_entry, with_nodes
from ckpttool.wire.message import edit

# Collections whose members tf.saved_model.load takes for variables.
_VARIABLES = ("local_variables", "variables")


class Initializers(NamedTuple):
    """The ops to be run; those that can't be, each with the reason; and the local variables that the saver restores."""

    ops: list[str]
    left_out: dict[str, str]
    restored: list[str]


def initializers(
    graph: MetaGraph,
    outputs: Collection[str],
    fed: Collection[str],
    missing: Mapping[str, str],
    restored: Collection[str] = (),
) -> Initializers:
    """The ops that initialize what a saver does not restore: they run after it.

    Args:
        graph: the graph.
        outputs: the tensors to be served.
        fed: the tensors that are fed for them.
        missing: op that lacks its file → why it can't be run.
        restored: the variables that the saver restores.

    Raises:
        NotSupportedError: an output needs what can't be initialized.
    """
    nodes = graph.by_name
    needed = needed_ops(nodes, outputs, fed)
    ops: list[str] = []
    left_out: dict[str, str] = {}
    local = local_initializers(graph)
    queue = _all(graph, nodes, [initializer for op, initializer in local.items() if op not in restored])
    tables = _unfilled(graph, needed, needed_ops(nodes, queue))
    queue += tables
    queued = set(queue)
    is_clear = not _hindrance(queue, nodes, missing)  # Nearly always; what they all need is not gone through for each.
    for op in queue:
        why = "" if is_clear else _hindrance([op], nodes, missing)
        if not why:
            ops.append(op)
            continue
        if nodes[op].type == "NoOp":  # A group: those of its ops that can be run will be.
            new = dict.fromkeys(name.removeprefix("^") for name in nodes[op].inputs)
            queue += [name for name in new if name not in queued]
            queued |= new.keys()
            continue
        state = op_of(nodes[op].inputs[0]) if nodes[op].inputs else op
        if state in needed or op in tables:
            state = tables.get(op, state)
            raise NotSupportedError(f"{op} initializes {state}, which an output needs, and {why}", path=graph.path)
        left_out[op] = why
    return Initializers(ops, left_out, [op for op in local if op in restored])


def _all(graph: MetaGraph, nodes: Mapping[str, Node], of_variables: Iterable[str]) -> list[str]:
    """The ops that initialize a graph: its main ops, and, unless these run them, those of tables and some variables."""
    main = dict.fromkeys(main_ops(graph))
    found = [*listed_ops(graph, "table_initializer"), *of_variables]
    run_by_main = needed_ops(nodes, main)
    return [op for op in dict.fromkeys([*main, *found]) if op in nodes and (op in main or op not in run_by_main)]


def _unfilled(graph: MetaGraph, needed: Collection[str], run: Collection[str]) -> dict[str, str]:
    """Op → the table that it fills, for each needed table that no op in `run` fills.

    Raises:
        NotSupportedError: nothing fills such a table.
    """
    found: dict[str, str] = {}
    filling, nodes = fillers(graph), graph.by_name
    for table in (op for op in nodes if op in needed and TABLE.fullmatch(nodes[op].type)):
        if table not in filling and nodes[table].type in STATIC_TABLES:
            raise NotSupportedError(f"an output needs the table {table}, which nothing fills", path=graph.path)
        if not any(op in run for op in filling.get(table, ())):
            found |= dict.fromkeys(filling.get(table, ()), table)
    return found


def _hindrance(ops: Iterable[str], nodes: Mapping[str, Node], missing: Mapping[str, str]) -> str:
    """Why ops can't be run; "" if they can be."""
    running = needed_ops(nodes, ops)
    reason = next((missing[each] for each in sorted(running) if each in missing), "")
    placeholders, waiting = unfed(nodes, running)
    if placeholders:
        return f"needs the placeholder {placeholders[0]}"
    return f"waits for {waiting[0]}" if waiting else reason


def with_declared_variables(data: bytes, graph: MetaGraph) -> bytes:
    """A MetaGraphDef whose collections of variables have VariableDefs, where they have names only.

    TensorFlow before 0.12 listed local variables by name, and tf.saved_model.load takes no names. A variable without an
    initializer can't be declared, and is left out.
    """
    assigned: dict[str, str] = {}
    nodes = graph.by_name
    for node in nodes.values():
        if node.type == "Assign" and node.inputs:
            assigned.setdefault(op_of(node.inputs[0]), node.name)
    for name in _VARIABLES:
        if name in graph.collections and graph.collections[name].kind == "node_list":
            declared = proto.message_class("CollectionDef")()
            declared.bytes_list.value.extend(
                _declaration(op, f"{op}/Assign" if f"{op}/Assign" in nodes else assigned[op], nodes)
                for op in listed_ops(graph, name)
                if op in assigned
            )
            data = with_entry(data, 4, name, proto.serialize(declared))
    return data


def _declaration(op: str, initializer: str, nodes: Collection[str]) -> bytes:
    snapshot = f"{op}/read" if f"{op}/read" in nodes else op
    names = {"variable_name": f"{op}:0", "initializer_name": initializer, "snapshot_name": f"{snapshot}:0"}
    return proto.serialize(proto.message_class("VariableDef")(**names))


def with_main_op(data: bytes, graph: MetaGraph, run: Initializers) -> bytes:
    """A MetaGraphDef whose main op runs these; as it was, if it does so already, or if there is nothing to run.

    Where ops are left out, or local variables are restored, there is a main op even if it runs nothing: without one,
    tf.saved_model.load would run all initializers after it has restored.
    """
    is_main = MAIN_OP in graph.collections and INIT_SIGNATURE not in graph.message.signature_def
    if (is_main and run.ops == listed_ops(graph, MAIN_OP)) or not (run.ops or run.left_out or run.restored):
        return data
    name = free_name("main_op", graph.by_name)
    group = new_op(name, "NoOp", [f"^{op}" for op in run.ops])
    main = proto.message_class("CollectionDef")()
    main.node_list.value.append(name)
    data = edit(data, {2: lambda graph_def: with_nodes(graph_def, [group])})
    data = with_entry(with_entry(data, 5, INIT_SIGNATURE, None), 4, "legacy_init_op", None)
    return with_entry(data, 4, MAIN_OP, proto.serialize(main))
