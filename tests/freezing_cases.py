"""Graphs that freeze, each with one thing that is hard to freeze: what builds it gives its outputs and what it is fed.

Graphs are made in graph mode, with the control flow of TensorFlow 1 unless `v2` is in the builder's name.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.function import Defun
from tensorflow.python.ops import gen_control_flow_ops, gen_resource_variable_ops

v1: Any = tf.compat.v1


class Case(NamedTuple):
    """What is fetched and fed; how it is saved (None: a Saver of everything); the inputs that `freeze` is given."""

    outputs: list[Any]
    feeds: dict[Any, Any]
    saver: Any = None
    inputs: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    fillers: tuple[str, ...] = ()


Builder = Callable[[], Case]
CASES: dict[str, Builder] = {}


def case(builder: Builder) -> Builder:
    CASES[builder.__name__] = builder
    return builder


@contextmanager
def control_flow(version: int) -> Iterator[None]:
    was = v1.control_flow_v2_enabled()
    (v1.enable_control_flow_v2 if version == 2 else v1.disable_control_flow_v2)()
    try:
        yield
    finally:
        (v1.enable_control_flow_v2 if was else v1.disable_control_flow_v2)()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def variable(name: str, *shape: int, resource: bool, value: Any = None, **options: Any) -> Any:
    value = noise(*shape, seed=len(name)) if value is None else value
    return v1.get_variable(name, initializer=v1.constant(value), use_resource=resource, **options)


def source(*shape: int | None) -> Any:
    return v1.placeholder(tf.float32, shape, name="x")


def _trained(resource: bool) -> Case:
    x = source(None, 4)
    w, b = variable("w", 4, 3, resource=resource), variable("b", 3, resource=resource)
    y = tf.nn.softmax(tf.matmul(x, w) + b, name="y")
    v1.train.AdamOptimizer().minimize(tf.reduce_mean(y * y), global_step=v1.train.get_or_create_global_step())
    return Case([y, w + 0], {x: noise(5, 4)})


@case
def references() -> Case:
    return _trained(resource=False)


@case
def resources() -> Case:
    return _trained(resource=True)


def _partitioned(resource: bool) -> Case:
    x, ids = source(None, 10), v1.placeholder(tf.int64, [None], name="ids")
    parts = v1.fixed_size_partitioner(3, axis=0)
    w = v1.get_variable("w", [10, 4], partitioner=parts, use_resource=resource)
    columns = v1.get_variable(
        "columns", [4, 6], partitioner=v1.fixed_size_partitioner(2, axis=1), use_resource=resource
    )
    y = tf.matmul(tf.matmul(x, tf.convert_to_tensor(w)), tf.convert_to_tensor(columns))
    rows = tf.nn.embedding_lookup(list(w), ids) if not resource else v1.nn.embedding_lookup(w, ids)
    return Case([y, rows], {x: noise(2, 10), ids: [9, 0, 3, 3]})


@case
def partitioned_references() -> Case:
    return _partitioned(resource=False)


@case
def partitioned_resources() -> Case:
    return _partitioned(resource=True)


@case
def restored_under_another_name() -> Case:
    """Two variables that are stored under one another's names."""
    a, b = variable("a", 3, resource=False), variable("b", 3, resource=True, value=noise(3, seed=9))
    return Case([a - 2 * b], {}, v1.train.Saver({"a": b, "b": a}))


@case
def restored_by_the_graphs_own_saver() -> Case:
    """A collection has further savers, and the ops of one that restores averages stand before the own one's."""
    w = [variable(f"w{i}", 3, resource=bool(i % 2)) for i in range(8)]
    for i in range(8):
        variable(f"w{i}/average", 3, resource=False)
    savers = [v1.train.Saver({f"w{i}/average": each for i, each in enumerate(w)}), v1.train.Saver()]
    for saver in savers:
        v1.add_to_collection("savers", saver)
    return Case([tf.stack([each * 2 for each in w])], {}, savers[1])


@case
def restored_reshaped() -> Case:
    w = variable("w", 2, 6, resource=False)
    return Case([w * 2], {}, v1.train.Saver(reshape=True))


@case
def saved_as_v1() -> Case:
    parts = v1.fixed_size_partitioner(2)
    w = v1.get_variable("w", [4, 3], partitioner=parts, use_resource=False)
    return Case([tf.convert_to_tensor(w) * 2], {}, v1.train.Saver(write_version=v1.train.SaverDef.V1))


def _loop(resource: bool) -> Case:
    x, w = source(2, 3), variable("w", 3, 3, resource=resource)
    rows = variable("rows", 7, 3, resource=resource)

    def body(i: Any, state: Any) -> Any:
        return i + 1, tf.tanh(tf.matmul(state, w)) + tf.gather(rows, i)

    return Case(list(tf.while_loop(lambda i, _: i < 5, body, [tf.constant(0), x])), {x: noise(2, 3)})


@case
def loop_with_references() -> Case:
    return _loop(resource=False)


@case
def loop_with_resources() -> Case:
    return _loop(resource=True)


@case
def v2_loop() -> Case:
    return _loop(resource=True)


@case
def v2_loop_within_a_branch_within_a_loop() -> Case:
    x, w = source(2, 3), variable("w", 3, 3, resource=True)

    def inner(state: Any) -> Any:
        return tf.while_loop(lambda j, _: j < 3, lambda j, s: (j + 1, tf.matmul(s, w)), [tf.constant(0), state])[1]

    def body(i: Any, state: Any) -> Any:
        return i + 1, tf.cond(i % 2 > 0, lambda: inner(state), lambda: state + w[0])

    return Case(list(tf.while_loop(lambda i, _: i < 4, body, [tf.constant(0), x])), {x: noise(2, 3)})


@case
def handles_that_go_round() -> Case:
    """The handle itself is a loop variable, as reference and as resource."""
    w, r = variable("w", 3, resource=True), variable("r", 3, resource=False)
    options = {"frame_name": "f", "is_constant": True}
    handle = gen_control_flow_ops.enter(tf.identity(w.handle), **options)
    read = gen_resource_variable_ops.read_variable_op(handle, tf.float32)
    reference = gen_control_flow_ops.ref_enter(r._ref(), **options)
    return Case([gen_control_flow_ops._exit(read + reference)], {})


def _branches(resource: bool) -> Case:
    flag, x = v1.placeholder(tf.bool, [], name="flag"), source(2, 3)
    a, b = variable("a", 3, 3, resource=resource), variable("bb", 3, resource=resource)
    y = tf.cond(flag, lambda: tf.matmul(x, a), lambda: x * b)
    merged = v1.cond(flag, lambda: tf.identity(a), lambda: tf.identity(a) + 1)
    return Case([y, merged], {flag: True, x: noise(2, 3)})


@case
def branches_with_references() -> Case:
    return _branches(resource=False)


@case
def branches_with_resources() -> Case:
    return _branches(resource=True)


@case
def v2_branches() -> Case:
    return _branches(resource=True)


@case
def v2_cases() -> Case:
    number, x = v1.placeholder(tf.int32, [], name="number"), source(2, 3)
    a, b = variable("a", 3, 3, resource=True), variable("bb", 3, resource=True)
    branches = [lambda: tf.matmul(x, a), lambda: x * b, lambda: x + b]
    return Case([tf.switch_case(number, branches)], {number: 2, x: noise(2, 3)})


@case
def v2_functions_called_with_several_variables() -> Case:
    """One function, called with variables of different types, and with another's variable through a further one."""
    x = source(2, 3)
    a, b = variable("a", 3, resource=True), variable("bb", 3, resource=True)
    n = variable("n", resource=True, value=np.int32(7))
    body: Any = tf.function(lambda x, v: x * v, autograph=False)
    outer = tf.function(lambda x: body(x, a) + body(x, b) + tf.cast(n, tf.float32), autograph=False)
    unused = tf.function(lambda x: x - 1, autograph=False)
    return Case([outer(x), outer(x + 1), unused(x)], {x: noise(2, 3)})


@case
def functions_by_name() -> Case:
    """A Defun, whose op is of the function's own type, with a variable captured and one given."""
    x = source(2, 3)
    a, b = variable("a", 3, resource=True), variable("r", 3, resource=False)

    @Defun(tf.float32, tf.float32, func_name="Scaled")
    def scaled(x: Any, b: Any) -> Any:
        return x * a + b

    return Case([scaled(x, b), scaled(x + 1, b)], {x: noise(2, 3)})


@case
def functions_that_return_a_handle() -> Case:
    a = variable("a", 3, resource=True)

    @Defun(tf.resource, func_name="Handed")
    def handed(handle: Any) -> Any:
        return tf.identity(handle)

    return Case([gen_resource_variable_ops.read_variable_op(handed(a.handle), tf.float32)], {})


@case
def gathering() -> Case:
    ids = v1.placeholder(tf.int64, [None], name="ids")
    w = variable("w", 7, 3, resource=True)
    b = variable("bb", 2, 5, 3, resource=True)
    places = v1.placeholder(tf.int32, [None, 2], name="places")
    raw = tf.raw_ops.ResourceGather
    batched = raw(resource=b.handle, indices=[[0, 4], [1, 1]], dtype=tf.float32, batch_dims=1)
    pairs = tf.raw_ops.ResourceGatherNd(resource=w.handle, indices=places, dtype=tf.float32)
    with tf.control_dependencies([batched]):
        rows = tf.nn.embedding_lookup(w, ids)
    return Case([rows, batched, pairs], {ids: [6, 0, 6], places: [[6, 2], [0, 1]]})


@case
def v2_gathering_in_functions() -> Case:
    ids, w = v1.placeholder(tf.int64, [None], name="ids"), variable("w", 7, 3, resource=True)
    return Case([tf.function(lambda ids: tf.gather(w, ids) + tf.gather(w, 0), autograph=False)(ids)], {ids: [6, 0, 6]})


@case
def v2_batched_gathering_in_functions() -> Case:
    """The function's axis is an op more; in one the indices are an argument, in the other an op's output."""
    ids, b = v1.placeholder(tf.int32, [None, None], name="ids"), variable("bb", 2, 5, 3, resource=True)

    @tf.function(autograph=False)
    def gathered(ids: Any) -> Any:
        raw = tf.raw_ops.ResourceGather
        given = raw(resource=b.handle, indices=ids, dtype=tf.float32, batch_dims=1)
        return given + raw(resource=b.handle, indices=ids // 2, dtype=tf.float32, batch_dims=1)

    return Case([gathered(ids)], {ids: [[0, 4], [1, 1]]})


@case
def constants_in_loops() -> Case:
    """What becomes a constant inside of a loop stays inside of it."""
    b = variable("bb", 2, 5, 3, resource=True)

    def body(i: Any, state: Any) -> Any:
        raw = tf.raw_ops.ResourceGather
        rows = raw(resource=b.handle, indices=[[i], [i + 1]], dtype=tf.float32, batch_dims=1)
        is_set = gen_resource_variable_ops.var_is_initialized_op(b.handle)
        return i + 1, state + tf.where(is_set, rows, rows * 2)

    return Case(list(tf.while_loop(lambda i, _: i < 3, body, [tf.constant(0), tf.zeros([2, 1, 3])])), {})


@case
def references_in_branches() -> Case:
    flag, w = v1.placeholder(tf.bool, [], name="flag"), variable("w", 3, resource=False)
    no, yes = gen_control_flow_ops.ref_switch(w._ref(), flag)
    other, _ = gen_control_flow_ops.ref_switch(w._ref(), tf.logical_not(flag))
    merged, index = gen_control_flow_ops.ref_merge([no, yes])
    return Case([merged, index, tf.raw_ops.RefIdentity(input=other) * 2], {flag: True})


@case
def asked_about() -> Case:
    """A variable's shape, and whether it has a value."""
    w, r = variable("w", 4, 3, resource=True), variable("r", 3, resource=False)
    shape = gen_resource_variable_ops.variable_shape(w.handle, out_type=tf.int64)
    known = [w.is_initialized(), v1.is_variable_initialized(r), r.initialized_value()]
    return Case([shape, *known], {})


@case
def dtypes() -> Case:
    values = {
        "b": np.array([True, False]),
        "i": np.array([[-5, 1 << 40]]),
        "u": np.arange(5, dtype=np.uint8),
        "h": noise(3).astype(np.float16),
        "d": noise(3).astype(np.float64),
        "c": (noise(3) + 1j * noise(3, seed=1)).astype(np.complex64),
        "bf": noise(3).astype(tf.bfloat16.as_numpy_dtype),
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.float32(2.5),
        "nan": np.array([np.nan, -0.0, np.inf], np.float32),
    }
    each = [variable(name, resource=resource, value=value) for (name, value), resource in _alternating(values)]
    text = [v1.Variable([b"a\0b", b"", "ü".encode()], use_resource=r, name=f"s{r}") for r in (True, False)]
    return Case([tf.identity(v) for v in [*each, *text]], {})


def _alternating(values: dict[str, Any]) -> Any:
    return zip(values.items(), [True, False] * len(values), strict=False)


@case
def updates_that_are_waited_for() -> Case:
    """Batch normalization whose moving averages are updated on the way: the updates go, and what they give stays."""
    x, training = source(None, 3), v1.placeholder(tf.bool, [], name="training")
    mean = variable("mean", 3, resource=False, trainable=False)

    def train() -> Any:
        batch = tf.reduce_mean(x, 0)
        with tf.control_dependencies([v1.assign(mean, batch, name="update")]):
            return tf.identity(batch)

    y = x - v1.cond(training, train, lambda: tf.identity(mean))
    return Case([y], {x: noise(5, 3), training: True}, dropped=("update",))


@case
def v2_updates_in_functions() -> Case:
    x, mean = source(None, 3), variable("mean", 3, resource=True)

    @tf.function(autograph=False)
    def normalized(x: Any) -> Any:
        y = x - mean
        mean.assign(tf.reduce_mean(x, 0))
        return y

    return Case([normalized(x)], {x: noise(5, 3)}, dropped=("AssignVariableOp",))


@case
def tables() -> Case:
    words = v1.placeholder(tf.string, [None], name="words")
    initializer = tf.lookup.KeyValueTensorInitializer([b"a", b"b"], tf.constant([1, 0], tf.int64))
    table = tf.lookup.StaticHashTable(initializer, 2)
    w = variable("w", 3, 4, resource=True)
    rows = tf.nn.embedding_lookup(w, table.lookup(words))
    fillers = tuple(op.name for op in v1.get_collection("table_initializer"))
    return Case([rows], {words: [b"a", b"?", b"b"]}, fillers=fillers)


@case
def input_queues() -> Case:
    """Both outputs of a queue are fed, and one is not needed."""
    images, labels, _ = v1.train.batch([tf.ones([4]), tf.ones([], tf.int32), tf.ones([])], 3, name="batch")
    w = variable("w", 4, 2, resource=False)
    with tf.control_dependencies([images]):
        y = tf.matmul(images, w)
    return Case([y, labels * 2], {images: noise(3, 4), labels: [1, 2, 3]}, inputs=("batch:0", "batch:1", "batch:2"))


@case
def unrelated_colocation() -> Case:
    """An op tied to one that goes, and to one that stays."""
    x, w = source(3), variable("w", 3, resource=False)
    gone = tf.identity(x, name="gone")
    with tf.Graph.colocate_with(v1.get_default_graph(), gone.op), v1.colocate_with(w.op):
        y = tf.identity(x * w)
    return Case([y], {x: noise(3)})
