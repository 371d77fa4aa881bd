"""What keeps TensorFlow 2 from loading a graph: ops that it lacks, and ops that it takes from old graphs only.

A graph with an unregistered op can't be loaded. A deprecated op, such as TensorArrayV2 from before TensorFlow 1, is
allowed in graphs older than its deprecation; but tf.saved_model.load copies what a signature needs into a function,
which is new. OneShotIterator does not run in a function.

Dense hash tables have had one more input since TensorFlow 1.12, and a graph with older ones can't be loaded.

Boosted trees are still registered, but do not run: their kernels were removed between TensorFlow 2.4 and 2.9.

(tensorflow/core/framework/op_def_util.cc CheckOpDeprecation; core/kernels/data/iterator_ops.cc OneShotIteratorOp;
python/saved_model/load_v1_in_v2.py)
"""

from collections.abc import Collection
from typing import NamedTuple

from ckpttool import proto
from ckpttool.analysis.graphs.needs import needed_ops
from ckpttool.analysis.graphs.savers import saver_ops
from ckpttool.model.graph import MetaGraph

BOOSTED_TREES = ("BoostedTrees", "IsBoostedTrees")
"""Beginnings of types of ops that TensorFlow knows but has no kernels for."""

_DENSE_TABLES = ("MutableDenseHashTable", "MutableDenseHashTableV2")
_IN_NO_FUNCTION = {"OneShotIterator"}


class Obstacles(NamedTuple):
    """Types of ops, and functions.

    Attributes:
        needed: types that TensorFlow 2 lacks and outputs need.
        unneeded: types that it lacks and no output needs.
        deprecated: types that it takes from old graphs only, and outputs need.
        not_in_functions: types that it does not run in functions, and outputs need.
        trees: types that it no longer has kernels for, and outputs or the saver need.
        functions: the library functions in a form that nothing has read since TensorFlow 1.0.
        tables: types of tables that it takes only with one more input.
    """

    needed: list[str]
    unneeded: list[str]
    deprecated: list[str]
    not_in_functions: list[str]
    trees: list[str]
    functions: list[str]
    tables: list[str]


def obstacles(graph: MetaGraph, outputs: Collection[str], fed: Collection[str]) -> Obstacles:
    """What keeps TensorFlow 2 from computing these outputs, given what is fed."""
    known, functions = proto.known_ops(), graph.functions
    ops = needed_ops(graph.by_name, outputs, fed)
    needed = {graph.by_name[op].type for op in ops}
    lacking = {node.type for node in graph.nodes if node.type not in known and node.type not in functions}
    deprecated = [type for type in needed if type in known and known[type].HasField("deprecation")]
    trees = {graph.by_name[op].type for op in ops | saver_ops(graph)}
    trees = {type for type in trees if type.startswith(BOOSTED_TREES)}
    tables = {node.type for node in graph.nodes if node.type in _DENSE_TABLES and len(node.operands) < 2}
    unreadable = [name for name, function in functions.items() if function.node]
    found = (lacking & needed, lacking - needed, deprecated, needed & _IN_NO_FUNCTION, trees, unreadable, tables)
    return Obstacles(*map(sorted, found))
