"""The ops that initialize a graph, or the part of it that no saver stores, as its writer listed them.

saved_model_main_op    the op to be run once the variables are there
local_variables        each with its initializer
"""

from ckpttool.model.graph import MetaGraph
from ckpttool.model.nodes import op_of

MAIN_OP = "saved_model_main_op"
"""The collection of the op that initializes a SavedModel's graph after its variables were restored."""
INIT_SIGNATURE = "__saved_model_init_op"
"""The signature whose output is that op, since TensorFlow 2."""
_MAIN_OPS = (MAIN_OP, "legacy_init_op", "serving_init_op")


def main_ops(graph: MetaGraph) -> list[str]:
    """The ops that initialize a graph, as its writer marked them. The first kind of mark that there is counts.

    (tensorflow/python/saved_model/loader_impl.py get_init_op)
    """
    if INIT_SIGNATURE in graph.signatures:
        return [op_of(tensor) for tensor, _ in graph.signatures[INIT_SIGNATURE].outputs.values()]
    return next((found for name in _MAIN_OPS if (found := listed_ops(graph, name))), [])


def local_initializers(graph: MetaGraph) -> dict[str, str]:
    """The local variables, which no saver stores, each with the op that initializes it.

    (Before TensorFlow 0.12 the collection lists only names.)
    """
    found = {}
    local = graph.collections.get("local_variables")
    for member in local.members if local else ():
        name = member.get("variable_name", "") if isinstance(member, dict) else member
        op = op_of(name) if isinstance(name, str) else ""
        initializer = member.get("initializer_name", "") if isinstance(member, dict) else f"{op}/Assign"
        found[op] = op_of(initializer)
    return found


def listed_ops(graph: MetaGraph, collection: str) -> list[str]:
    """The ops that are members of a collection, or whose outputs are."""
    members = graph.collections[collection].members if collection in graph.collections else ()
    return [op_of(member) for member in members if isinstance(member, str)]
