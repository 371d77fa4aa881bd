"""What `saved-model` says of graphs that TensorFlow 2 does not load as they are."""

import pytest
from running import edit_meta, save_model, save_with_iterator
from serving import of_load, of_loader, of_server, require_same

from ckpttool import proto
from ckpttool.analysis.graphs.loading import BOOSTED_TREES
from ckpttool.model.nodes import all_nodes

tensorflow = pytest.mark.tensorflow


def build(v1) -> None:
    """y, which needs the op `inner`, and `beside`, which it does not."""
    x = v1.placeholder("float32", [None], name="x")
    w = v1.get_variable("w", initializer=2.0)
    v1.identity(v1.identity(x * w, name="inner"), name="y")
    v1.identity(x, name="beside")


def with_type(tf, prefix, name: str, type: str) -> None:
    """Makes an op of a saved graph one of another type."""

    def change(message):
        next(node for node in message.graph_def.node if node.name == name).op = type

    edit_meta(tf, prefix, change)


@pytest.fixture
def served(run, tmp_path):
    """What the command says of a saved model whose outputs are y, or y and another."""

    def served(prefix, *outputs: str) -> str:
        result = run("saved-model", prefix, "--outputs", ",".join(["y", *outputs]), "-o", tmp_path / "served")
        assert result.exit_code == 0, result.output
        return result.stderr

    return served


@tensorflow
def test_an_op_that_tensorflow_lacks_is_named_where_no_output_needs_it(served, run, tf, tmp_path):
    """TensorFlow does not load the graph, as is said, and loads it once it is frozen, as is said too."""
    prefix = save_model(tf, tmp_path, build)
    with_type(tf, prefix, "beside", "Resampler")
    why = "TensorFlow 2 has no Resampler, and loads no graph with one; no output needs it: freeze the graph first"
    assert f"note: {why}\n" in served(prefix)
    with pytest.raises(tf.errors.NotFoundError, match="Resampler"):
        tf.saved_model.load(str(tmp_path / "served"))
    assert run("freeze", prefix, "--outputs", "y", "-o", tmp_path / "frozen.pb").exit_code == 0
    arguments = ("--outputs", "y", "-o", tmp_path / "again")
    assert "note: TensorFlow" not in run("saved-model", tmp_path / "frozen.pb", *arguments).stderr
    assert of_load(tf, tmp_path / "again")


@tensorflow
def test_an_op_that_tensorflow_lacks_is_named_where_an_output_needs_it(served, tf, tmp_path):
    """Then freezing would not help."""
    prefix = save_model(tf, tmp_path, build)
    with_type(tf, prefix, "inner", "Resampler")
    why = "TensorFlow 2 has no Resampler, which an output needs: only where it is registered is the graph loaded"
    assert f"note: {why}\n" in served(prefix)


@tensorflow
@pytest.mark.parametrize("is_needed", [True, False])
def test_an_op_that_only_old_graphs_may_have_is_named_where_an_output_needs_it(served, tf, tmp_path, is_needed):
    """tf.saved_model.load makes a new function of what the outputs need; a session takes the graph as the old one."""

    def with_array(v1):
        build(v1)
        v1.raw_ops.TensorArrayV3(size=2, dtype="float32", name="array")

    def as_tensorflow_0(message):
        message.graph_def.versions.producer = 20
        nodes = {node.name: node for node in message.graph_def.node}
        nodes["array"].op = "TensorArrayV2"
        for name in ("identical_element_shapes", "_output_shapes"):
            del nodes["array"].attr[name]
        nodes["y"].input.extend(["^array"] * is_needed)

    prefix = save_model(tf, tmp_path, with_array)
    edit_meta(tf, prefix, as_tensorflow_0)
    why = "tf.saved_model.load takes no TensorArrayV2, which an output needs; tf.compat.v1.saved_model.load does"
    assert (f"note: {why}\n" in served(prefix)) == is_needed
    assert of_loader(tf, tmp_path / "served")
    assert of_server(tf, tmp_path / "served")
    if is_needed:
        with pytest.raises(tf.errors.UnimplementedError, match="TensorArrayV2"):
            of_load(tf, tmp_path / "served")
    else:
        assert of_load(tf, tmp_path / "served")


@tensorflow
@pytest.mark.parametrize("is_needed", [True, False])
def test_an_op_that_runs_in_no_function_is_named_where_an_output_needs_it(served, tf, tmp_path, is_needed):
    """tf.saved_model.load makes a function of what the outputs need; a session runs the graph as it is."""

    def with_iterator(v1):
        build(v1)
        data = tf.data.Dataset.from_tensors([1.0]).repeat()
        v1.identity(v1.data.make_one_shot_iterator(data).get_next(), name="z")

    prefix = save_model(tf, tmp_path, with_iterator)
    why = "tf.saved_model.load runs no OneShotIterator, which an output needs; tf.compat.v1.saved_model.load does"
    assert (f"note: {why}\n" in served(prefix, *["z"] * is_needed)) == is_needed
    assert of_loader(tf, tmp_path / "served")
    if is_needed:
        with pytest.raises(tf.errors.InvalidArgumentError, match="OneShotIterator"):
            of_load(tf, tmp_path / "served")
    else:
        assert of_load(tf, tmp_path / "served")


@tensorflow
def test_a_dense_table_of_tensorflow_1_12(served, run, tf, tmp_path):
    """It has an input less than since. TensorFlow does not import such a graph: what does not need the table runs."""

    def with_table(v1):
        build(v1)
        tf.lookup.experimental.DenseHashTable(tf.int64, tf.float32, 0.0, empty_key=-1, deleted_key=-2)

    def as_tensorflow_1(message):
        next(node for node in message.graph_def.node if node.op == "MutableDenseHashTableV2").input.pop()

    prefix = save_model(tf, tmp_path, with_table)
    edit_meta(tf, prefix, as_tensorflow_1)
    assert "does not load the graph: MutableDenseHashTableV2, as 1.12 wrote it, lacks an input" in served(prefix)
    with pytest.raises(ValueError, match="do not match 1 inputs"):
        tf.saved_model.load(str(tmp_path / "served"))
    result = run("run", prefix, "--fetch", "y", "--feed", "x=[3]", "--format", "json")
    assert (result.exit_code, "6.0" in result.stdout) == (0, True), result.output
    assert "left out 1 op that can't run here: MutableDenseHashTableV2" in result.stderr


@tensorflow
def test_a_saver_of_an_iterator_restores_the_rest(served, tf, tmp_path):
    """A loader restores before the iterator has its data: TensorFlow loaded no such SavedModel. To TensorFlow 1, the
    iterator's state was a scalar.
    """

    def as_tensorflow_1(message):
        node = next(node for node in message.graph_def.node if node.op == "SerializeIterator")
        del node.attr["_output_shapes"].list.shape[:]
        node.attr["_output_shapes"].list.shape.add()

    prefix = save_with_iterator(tf, tmp_path)
    edit_meta(tf, prefix, as_tensorflow_1)
    said = served(prefix)
    assert "note: save/DeserializeIterator is not run: it needs data in IteratorV2 first; no output needs it" in said
    feeds = {"x": tf.constant([3.0])}
    assert tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"](**feeds)["y"].numpy() == [7]


@tensorflow
@pytest.mark.parametrize("release", ["1.12", "1.15"])
def test_functions_that_call_functions_are_loaded(served, tf, tmp_path, release):
    """Before TensorFlow 1.13 nothing kept TensorFlow 2 from looking into them when only the outermost is there."""
    from tensorflow.python.framework.function import Defun

    forbids = "_disable_call_shape_inference"

    def nested(v1):
        innermost = Defun("float32", func_name="innermost")(lambda x: x * x)
        middle = Defun("float32", func_name="middle")(lambda x: innermost(x) + 1.0)
        outer = Defun("float32", func_name="outer")(lambda x: middle(x) + innermost(x))
        x = v1.placeholder("float32", [None], name="x")
        v1.identity(outer(x * v1.get_variable("w", initializer=2.0)), name="y")

    def as_tensorflow_1_12(message):
        for each in (*message.graph_def.library.function, *all_nodes(message.graph_def)):
            each.attr.pop(forbids, None)

    prefix = save_model(tf, tmp_path, nested)
    if release == "1.12":
        edit_meta(tf, prefix, as_tensorflow_1_12)
    served(prefix)
    assert require_same(tf, f"{prefix}.meta", prefix, tmp_path / "served")


@tensorflow
def test_functions_of_before_tensorflow_1_are_named(served, tf, tmp_path):
    """tf.saved_model.load takes no graph that has one, whether or not an output needs it."""

    def as_tensorflow_0(message):
        function = message.graph_def.library.function.add()
        function.signature.name = "old"
        function.signature.output_arg.add(name="y", type=1)
        function.MergeFromString(bytes.fromhex("1209 0a0179 1204 4e6f4f70"))  # node {ret: "y", op: "NoOp"}

    prefix = save_model(tf, tmp_path, build)
    edit_meta(tf, prefix, as_tensorflow_0)
    why = "is written as TensorFlow before 1.0 wrote it, and none since reads it"
    assert f"note: tf.saved_model.load does not load the graph: the function old {why}\n" in served(prefix)
    with pytest.raises(KeyError):
        of_load(tf, tmp_path / "served")


@tensorflow
@pytest.mark.parametrize("name", ["inner", "beside"])
def test_trees_that_nothing_runs_any_more_are_named_where_an_output_needs_them(served, tf, tmp_path, name):
    """TensorFlow still registers the ops of boosted trees, and has no kernel of any."""
    from tensorflow.python.framework.kernels import get_registered_kernels_for_op

    types = [type for type in proto.known_ops() if type.startswith(BOOSTED_TREES)]
    assert len(types) > 20
    assert not any(get_registered_kernels_for_op(type).kernel for type in types)
    prefix = save_model(tf, tmp_path, build)
    with_type(tf, prefix, name, "BoostedTreesPredict")
    why = (
        "TensorFlow 2.9 and later have no kernels of BoostedTreesPredict, and do not load the graph; 2.4 and before do"
    )
    assert (f"note: {why}\n" in served(prefix)) == (name == "inner")
