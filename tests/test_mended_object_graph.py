"""TensorFlow 2 restores what was renamed, cast, chosen or relieved of its slots: the object graph agrees."""

import json
import re
import shutil

import numpy as np
import pytest
from bundles import bundle, field
from conftest import FIXTURES

import ckpttool
from ckpttool import proto
from ckpttool.errors import NotFoundError
from ckpttool.model.object_keys import OBJECT_GRAPH_KEY

OBJECTS = FIXTURES / "objects" / "model-1"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def message_of(checkpoint: ckpttool.Checkpoint):
    return proto.message_class("TrackableObjectGraph").FromString(checkpoint[OBJECT_GRAPH_KEY].strings()[0])


def stored(checkpoint: ckpttool.Checkpoint) -> dict[int, dict[str, object]]:
    """The keys of the variables of each object, as the object graph names them."""
    return checkpoint.object_graph.stored(checkpoint)


# The message


def test_nothing_changed_is_the_same_bytes():
    """What changes no name leaves the object graph as it was, byte for byte, and not read."""
    checkpoint = ckpttool.open_checkpoint(OBJECTS)
    assert ckpttool.rename(checkpoint, ["nothing=>x"])[OBJECT_GRAPH_KEY] is checkpoint[OBJECT_GRAPH_KEY]


def test_only_keys_change():
    """Of a renamed checkpoint's graph the keys differ, and nothing else; renamed back, it is the same bytes."""
    checkpoint = ckpttool.open_checkpoint(OBJECTS)
    renamed = ckpttool.rename(checkpoint, ["^=>long/new/scope/"])
    before, after = message_of(checkpoint), message_of(renamed)
    for node in after.nodes:
        for attribute in node.attributes:
            assert attribute.checkpoint_key.startswith("long/new/scope/")
            attribute.checkpoint_key = attribute.checkpoint_key.removeprefix("long/new/scope/")
    assert after == before
    assert set(renamed) - {OBJECT_GRAPH_KEY} == {key for keys in stored(renamed).values() for key in keys}
    again = ckpttool.rename(renamed, [], strip_prefix="long/new/scope/")
    assert again[OBJECT_GRAPH_KEY].strings() == checkpoint[OBJECT_GRAPH_KEY].strings()


def test_a_variable_that_only_bears_the_name(run, tmp_path):
    """An array of that name is a variable as any, which is left alone where others are left out."""
    values = {
        OBJECT_GRAPH_KEY: np.ones(2, np.float32),
        f"a{VALUE}": np.zeros(3, np.float32),
        "b": np.zeros(1, np.int32),
    }
    prefix = bundle(values).write(tmp_path)
    result = run("export", prefix, "--npz", tmp_path / "out.npz", "--exclude", "b", "--rename", "^a/=>c/")
    assert result.exit_code == 0, result.stderr
    with np.load(tmp_path / "out.npz") as archive:
        assert {name: archive[name].tolist() for name in archive} == {OBJECT_GRAPH_KEY: [1, 1], f"c{VALUE}": [0, 0, 0]}


def test_unknown_fields_stay(tmp_path):
    """What a later TensorFlow may store beside is written back as it was."""
    attribute = field(2, field(1, b"VARIABLE_VALUE") + field(3, b"w") + field(77, b"attribute"))
    data = field(1, attribute + field(88, b"node")) + field(99, b"graph")
    renamed = ckpttool.rename(_with_graph(data, tmp_path), ["^w$=>longer"])
    new = field(2, field(1, b"VARIABLE_VALUE") + field(3, b"longer") + field(77, b"attribute"))
    assert renamed[OBJECT_GRAPH_KEY].strings() == [field(1, new + field(88, b"node")) + field(99, b"graph")]


def _with_graph(data: bytes, tmp_path) -> ckpttool.Checkpoint:
    """A bundle of a scalar `w`, with an object graph beside."""
    scalar = np.empty((), object)
    scalar[()] = data
    return bundle({"w": np.float32(1), OBJECT_GRAPH_KEY: scalar}).open(tmp_path)


def test_a_damaged_object_graph_is_an_error(tmp_path):
    """An object graph that is none can't be mended: an error, and no file."""
    checkpoint = _with_graph(b"\xff\xff\xff", tmp_path)
    before = set(tmp_path.iterdir())
    with pytest.raises(ckpttool.CorruptionError):
        ckpttool.write_bundle(ckpttool.rename(checkpoint, ["w=>v"]), tmp_path / "out")
    assert set(tmp_path.iterdir()) == before


# TensorFlow restores


def rewritten(checkpoint: ckpttool.Checkpoint, tmp_path) -> str:
    ckpttool.write_bundle(checkpoint, tmp_path / "out")
    return str(tmp_path / "out")


@pytest.fixture(scope="module")
def plain(tf, tmp_path_factory):
    """A module of variables with a table, saved: its class, the module, the checkpoint's prefix."""

    class Layer(tf.Module):
        def __init__(self, dtype, start):
            super().__init__()
            self.kernel = tf.Variable(tf.cast(tf.reshape(tf.range(6.0), (2, 3)) * start, dtype))
            self.bias = tf.Variable(tf.cast([start, -start], dtype))

    class Model(tf.Module):
        def __init__(self, dtype=tf.float32, start=0.0):
            super().__init__()
            self.layers = [Layer(dtype, start), Layer(dtype, 2 * start)]
            self.first = self.layers[0]
            self.step = tf.Variable(int(start), dtype=tf.int64)
            self.table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)

    model = Model(start=3.0)
    model.table.insert(tf.constant(["a", "b"]), tf.constant([1, 2], tf.int64))
    prefix = tf.train.Checkpoint(model=model).write(str(tmp_path_factory.mktemp("plain") / "ckpt"))
    return Model, model, prefix


def assert_equal(restored, model) -> None:
    for a, b in zip(restored.variables, model.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "rules", [["^model/=>net/"], ["[eo](?=.*/[.])=>"], ["^=>x/"], [r"layers/(\d)=>layer\1"], ["^.*?layers=>L"]]
)
def test_renamed_objects_are_restored(tf, tmp_path, plain, rules):
    """Whatever the variables are called, tf.train.Checkpoint finds them all, and everything is consumed."""
    model_class, model, prefix = plain
    out = rewritten(ckpttool.rename(ckpttool.open_checkpoint(prefix), rules), tmp_path)
    restored = model_class()
    tf.train.Checkpoint(model=restored).read(out).assert_consumed()
    assert_equal(restored, model)
    assert restored.table.lookup(tf.constant(["b", "c"])).numpy().tolist() == [2, -1]


@pytest.mark.tensorflow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_cast_objects_are_restored(tf, tmp_path, plain, dtype):
    """A model of another float type restores the cast checkpoint: the values as tf.cast makes them."""
    model_class, model, prefix = plain
    out = rewritten(ckpttool.cast(ckpttool.open_checkpoint(prefix), dtype), tmp_path)
    restored = model_class(tf.as_dtype(dtype))
    tf.train.Checkpoint(model=restored).read(out).assert_consumed()
    for a, b in zip(restored.variables, model.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), tf.cast(b, a.dtype).numpy())


@pytest.mark.tensorflow
def test_chosen_objects_are_restored(tf, tmp_path, plain, run):
    """Of a checkpoint of chosen variables, these are restored, and the others keep what they had."""
    model_class, model, prefix = plain
    result = run("export", prefix, "--tf", tmp_path / "out", "--include", "**/kernel/**")
    assert result.exit_code == 0, result.stderr
    restored = model_class(start=7.0)
    tf.train.Checkpoint(model=restored).read(str(tmp_path / "out")).assert_consumed()
    for layer, original in zip(restored.layers, model.layers, strict=True):
        np.testing.assert_array_equal(layer.kernel.numpy(), original.kernel.numpy())
    assert restored.first.bias.numpy().tolist() == [7, -7]
    assert restored.step.numpy() == 7


@pytest.mark.tensorflow
def test_the_mean_of_objects_is_restored(tf, tmp_path, plain, run):
    """The mean of two checkpoints of a model is restored: floats averaged, the step and the table of the last."""
    model_class, _, prefix = plain
    other = model_class(start=9.0)
    last = tf.train.Checkpoint(model=other).write(str(tmp_path / "other"))
    assert run("average", prefix, last, "--tf", tmp_path / "out", "-x", "**/.ATTRIBUTES/table*").exit_code == 0
    restored = model_class()
    tf.train.Checkpoint(model=restored).read(str(tmp_path / "out")).assert_consumed()
    assert restored.first.bias.numpy().tolist() == [6, -6]
    assert restored.step.numpy() == 9


def untrained(keras):
    return keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(2)])


def trained(keras, optimizer):
    """A model of Keras after a step, with its optimizer."""
    model = untrained(keras)
    model.compile(optimizer, "mse", run_eagerly=True)
    model.train_on_batch(np.ones((2, 3), np.float32), np.zeros((2, 2), np.float32))
    return model


KERAS = {
    "Keras 3, Adam": ("keras", lambda optimizers: optimizers.Adam(0.5)),
    "Keras 3, momentum and averages": ("keras", lambda optimizers: optimizers.SGD(0.5, momentum=0.9, use_ema=True)),
    "Keras 2, Adam": ("tf_keras", lambda optimizers: optimizers.Adam(0.5)),
    "Keras 2, legacy Adam": ("tf_keras", lambda optimizers: optimizers.legacy.Adam(0.5)),
    "Keras 2, legacy Ftrl": ("tf_keras", lambda optimizers: optimizers.legacy.Ftrl(0.5)),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize(("library", "make"), KERAS.values(), ids=KERAS)
def test_a_model_without_its_optimizer_is_restored(tf, tmp_path, library, make):
    """Without its slots, renamed, a trained model of Keras is restored whole; an optimizer keeps what it has."""
    keras = pytest.importorskip(library)
    model = trained(keras, make(keras.optimizers))
    prefix = tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(str(tmp_path / "ckpt"))
    dropped = ckpttool.drop_slots(ckpttool.open_checkpoint(prefix))
    assert len(dropped) == 1 + len(model.weights)
    out = rewritten(ckpttool.rename(dropped, ["^[^/]*/=>x/"]), tmp_path)
    assert not any(node.slot_variables for node in message_of(ckpttool.open_checkpoint(out)).nodes)

    alone, weights = untrained(keras), model.get_weights()
    tf.train.Checkpoint(model=alone).read(out).assert_consumed()
    model.set_weights([np.zeros_like(array) for array in weights])
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).read(out).expect_partial()
    assert int(np.asarray(model.optimizer.iterations)) == 1
    for restored in (alone, model):
        for a, b in zip(restored.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(a, b)
    model.train_on_batch(np.ones((2, 3), np.float32), np.zeros((2, 2), np.float32))
    assert int(np.asarray(model.optimizer.iterations)) == 2


@pytest.mark.tensorflow
def test_keras_loads_the_weights(tf, tmp_path):
    """Keras 2's load_weights takes the checkpoint without slots as it took the one with them."""
    keras = pytest.importorskip("tf_keras")
    model = trained(keras, keras.optimizers.Adam(0.5))
    model.save_weights(str(tmp_path / "weights"))
    out = rewritten(ckpttool.drop_slots(ckpttool.open_checkpoint(tmp_path / "weights")), tmp_path)
    fresh = untrained(keras)
    fresh.load_weights(out).expect_partial()
    for a, b in zip(fresh.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.tensorflow
def test_everything_by_the_command(tf, tmp_path, plain, run):
    """The command does all of it at once, and what it plans is what it writes."""
    model_class, model, prefix = plain
    options = ["--drop-slots", "--rename", "^model/=>net/", "--strip-prefix", "net/", "--cast", "float16"]
    planned = json.loads(run("export", prefix, "--tf", tmp_path / "out", *options, "--dry-run", "--json").stdout)[
        "plan"
    ]
    assert not list(tmp_path.iterdir())
    assert run("export", prefix, "--tf", tmp_path / "out", *options).exit_code == 0
    written = ckpttool.open_checkpoint(tmp_path / "out")
    assert {row["becomes"]: row["cast"] or row["dtype"] for row in planned} == {
        name: variable.dtype.name for name, variable in written.items()
    }
    restored = model_class(tf.float16)
    tf.train.Checkpoint(model=restored).read(str(tmp_path / "out")).assert_consumed()
    np.testing.assert_array_equal(restored.first.kernel.numpy(), tf.cast(model.first.kernel, tf.float16).numpy())


def test_names_of_objects_do_not_lead_back(run, tmp_path):
    """A file of variables under their objects' names has an object graph that does not know them: that is told."""
    run("export", OBJECTS, "--npz", tmp_path / "named.npz", "--names", "object", "--drop-slots")
    result = run("export", tmp_path / "named.npz", "--tf", tmp_path / "back")
    assert "will not restore 6 variables that no object has: 'model/layers/1/bias'" in result.stderr


@pytest.mark.tensorflow
def test_names_cut_short_are_told(tf, tmp_path, plain, run):
    """TensorFlow restores no variable whose name lost its end: it is told, once."""
    model_class, _, prefix = plain
    rule = f"kernel{VALUE}$=>w"
    assert run("export", prefix, "--npz", tmp_path / "out.npz", "--rename", rule).stderr.count("warning") == 0
    result = run("export", prefix, "--tf", tmp_path / "out", "--rename", rule)
    assert result.exit_code == 0
    (warning,) = (line for line in result.stderr.splitlines() if "warning" in line)
    assert "will not restore 2 variables" in warning
    assert "'model/first/w'" in warning
    assert "whose objects keep their names" not in result.stderr
    restored = model_class()
    tf.train.Checkpoint(model=restored).read(str(tmp_path / "out")).expect_partial()
    assert restored.first.bias.numpy().tolist() == plain[1].first.bias.numpy().tolist()
    assert run("export", prefix, "--tf", tmp_path / "named", "--names", "object").exit_code == 0
    tf.train.Checkpoint(model=model_class()).read(str(tmp_path / "named")).expect_partial()


@pytest.mark.tensorflow
def test_what_a_writer_leaves_out_is_in_no_object_graph(tf, tmp_path, run):
    """V1 holds no bfloat16: the way back through it leaves a checkpoint of the rest, which is restored."""
    narrow = tf.Variable(tf.cast([2.0], tf.bfloat16))
    saved = tf.train.Checkpoint(w=tf.Variable([3.0]), b=narrow, ds=iter(tf.data.Dataset.range(3)))
    assert run("export", saved.write(str(tmp_path / "a")), "--tf-v1", tmp_path / "v1").exit_code == 0
    assert run("export", tmp_path / "v1", "--tf", tmp_path / "b").exit_code == 0
    assert run("verify", tmp_path / "v1").exit_code == run("verify", tmp_path / "b").exit_code == 0
    w, b = tf.Variable([0.0]), tf.Variable(tf.cast([0.0], tf.bfloat16))
    tf.train.Checkpoint(w=w, b=b).read(str(tmp_path / "b")).expect_partial()
    assert (w.numpy().tolist(), b.numpy().tolist()) == ([3], [0])


@pytest.mark.tensorflow
def test_a_lost_object_graph_is_told(tf, tmp_path, plain, run):
    """Whoever excludes the object graph is told what that means, and TensorFlow restores nothing indeed."""
    model_class, _, prefix = plain
    result = run("export", prefix, "--tf", tmp_path / "out", "-x", OBJECT_GRAPH_KEY, "-q")
    assert result.exit_code == 0
    assert "warning: without the object graph, tf.train.Checkpoint will not restore this" in result.stderr
    with pytest.raises(Exception, match=r".+"):
        tf.train.Checkpoint(model=model_class()).read(str(tmp_path / "out")).assert_consumed()


# Names of objects


def test_variables_are_chosen_by_their_objects(run):
    """Patterns are about keys, with their end and without, objects' paths and full names; what one of them excludes is
    out.
    """
    shown = [row.split("\t") for row in run("vars", OBJECTS, "-f", "tsv").stdout.splitlines()[1:]]
    for key, path, full_name, *_ in shown:
        for name in filter(None, (key, key.removesuffix(VALUE), path, full_name)):
            chosen = run("vars", OBJECTS, "-f", "tsv", "-i", name).stdout.splitlines()[1:]
            assert key in {row.split("\t")[0] for row in chosen}
            left = run("vars", OBJECTS, "-f", "tsv", "-x", name).stdout.splitlines()[1:]
            assert key not in {row.split("\t")[0] for row in left}


def test_a_variable_is_found_by_its_object(run):
    """cat takes an object's path or a full name that only one variable has; in Python, the error says the key."""
    checkpoint = ckpttool.open_checkpoint(OBJECTS)
    key = next(key for key, place in checkpoint.places.items() if key.endswith(VALUE) and place.path != key)
    path = checkpoint.places[key].path
    found = run("cat", OBJECTS, path)
    assert found.stdout == run("cat", OBJECTS, key).stdout
    assert f"note: it is stored as {key}" in found.stderr
    with pytest.raises(NotFoundError, match=f"it is stored as {re.escape(key)}"):
        checkpoint[path]
    assert checkpoint.get(path) is None


def test_a_key_is_known_without_its_end(run, tmp_path):
    """What a table shows of a key, without its end, is a name too; where there is no data file, for patterns alone."""
    for file in OBJECTS.parent.glob("model-1.*"):
        shutil.copy(file, tmp_path)
    (key,) = (key for key in ckpttool.open_checkpoint(OBJECTS) if key.startswith("opt/_trainable_variables/0/"))
    assert run("cat", OBJECTS, key.removesuffix(VALUE)).stdout == run("cat", OBJECTS, key).stdout
    (tmp_path / "model-1.data-00000-of-00001").unlink()
    chosen = run("vars", tmp_path / "model-1", "-f", "tsv", "-i", key.removesuffix(VALUE)).stdout.splitlines()[1:]
    assert [row.split("\t")[0] for row in chosen] == [key]


@pytest.mark.parametrize("kind", ["object", "full"])
def test_variables_are_named_by_their_objects(run, tmp_path, kind):
    """--names gives objects' paths or full names, values as they are, in Python too; rules are about these."""
    checkpoint = ckpttool.open_checkpoint(OBJECTS)
    wanted = {key: place for key, place in checkpoint.places.items() if key.endswith(VALUE)}
    names = {key: (kind == "full" and place.full_name) or place.path for key, place in wanted.items()}
    result = run("export", OBJECTS, "--names", kind, "--rename", "^=>new/", "--npz", tmp_path / "out.npz")
    assert result.exit_code == 0, result.stderr
    found = ckpttool.open_checkpoint(tmp_path / "out.npz")
    for key, name in names.items():
        assert found[f"new/{name}"].numpy().tobytes() == checkpoint[key].numpy().tobytes()
    assert set(ckpttool.rename(checkpoint, ["^=>new/"], names=kind)) == set(found)
    assert (
        "no object graph to name variables by"
        in run("export", FIXTURES / "conv" / "model", "--names", kind, "--npz", tmp_path / "conv.npz").stderr
    )
    with pytest.raises(ValueError, match="names is 'fool', and must be one of key, object, full"):
        ckpttool.rename(checkpoint, names="fool")
