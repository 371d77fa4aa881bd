"""Several ops that hold one variable, as after importing twice: users of the others get the declared one.

    v   (VarHandleOp, shared_name v) ─▶ ReadVariableOp        v ─▶ ReadVariableOp
    v_1 (VarHandleOp, shared_name v) ─▶ ReadVariableOp_1        ╰▶ ReadVariableOp_1

In a session, their shared name makes them one variable. tf.saved_model.load makes a variable for each op that a
collection declares, under a name of its own, and the other ops find none.

(tensorflow/python/saved_model/load_v1_in_v2.py; core/framework/resource_mgr.h)
"""

from ckpttool.analysis.graphs.running import shared_state
from ckpttool.model.graph import MetaGraph
from ckpttool.model.nodes import VARIABLE_OPS, split_tensor
from ckpttool.model.texts import to_bytes, to_text
from ckpttool.transforms.graph_edits import edit_meta_graph
from ckpttool.wire.message import edit


def with_one_op_each(graph: MetaGraph) -> MetaGraph:
    """The graph with ops that take the declared variable where there is one; unchanged if all do already."""
    nodes, declared = graph.by_name, graph.variable_defs
    held = [name for name, node in nodes.items() if node.type in VARIABLE_OPS]
    known = {shared_state(nodes, name): name for name in held if name in declared}
    states = {name: shared_state(nodes, name) for name in held if name not in declared}
    twins = {name: known[state] for name, state in states.items() if state in known}
    if not twins:
        return graph

    def operand(value: bytes) -> bytes:
        op, _ = split_tensor(to_text(value))
        return to_bytes(f"{twins[op]}:0") if op in twins else value

    return edit_meta_graph(graph, lambda data: edit(data, {2: {1: {3: operand}}}))
