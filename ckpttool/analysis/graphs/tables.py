"""Lookup tables, and what fills them. Their contents are not variables: an op that is run once puts them in.

HashTableV2 ──▶ LookupTableFindV2                 the table, as it is used
     └────────▶ InitializeTableFromTextFileV2     and as it is filled
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from ckpttool.analysis.graphs.functions import called_functions, function_callers
from ckpttool.analysis.graphs.needs import walk
from ckpttool.model.graph import MetaGraph
from ckpttool.model.nodes import Node, op_of

TABLE = re.compile(r"(?:Mutable)?(?:Dense)?HashTable(?:OfTensors)?(?:V2)?|(?:Anonymous\w*Table)(?:V2)?")
"""Types of the ops that are tables."""

STATIC_TABLES = {"HashTable", "HashTableV2", "AnonymousHashTable"}
"""Types of tables that can't be used before they are filled; others start empty."""

_FILLS = ("InitializeTable", "LookupTableImport")
_RESTORES = "Restore"


def fillers(graph: MetaGraph) -> dict[str, list[str]]:
    """Table → the ops that fill it, themselves or by a function. A saver's restoring does not count."""
    nodes, functions = graph.by_name, _filling(graph.graph_def.library.function)
    found: dict[str, list[str]] = {}
    for node in nodes.values():
        for table in _filled(node, nodes, functions):
            found.setdefault(table, []).append(node.name)
    return found


def _filled(node: Node, nodes: Mapping[str, Node], functions: Collection[str]) -> list[str]:
    """The tables that an op fills."""
    if node.type.startswith(_FILLS):
        table, *sources = [op_of(text) for text in node.operands] or [""]
        is_restored = any(op in nodes and nodes[op].type.startswith(_RESTORES) for op in sources)
        return [table] if table and not is_restored else []
    if not functions or not called_functions(node.message, functions):
        return []
    taken = [op_of(text) for text in node.operands]
    return [op for op in dict.fromkeys(taken) if op in nodes and TABLE.fullmatch(nodes[op].type)]


def _filling(library: Any) -> set[str]:
    """The functions that fill tables, or call a function that does; without the functions of savers."""

    def having(types: str | tuple[str, ...]) -> list[str]:
        return [f.signature.name for f in library if any(node.op.startswith(types) for node in f.node_def)]

    filling = having(_FILLS)
    if not filling:
        return set()
    callers = function_callers(library)
    return walk(filling, callers) - walk(having(_RESTORES), callers)
