"""Keras' HDF5, either way: tf_keras loads what we write by the names of its layers, and we read what Keras saves by the
names that it gave its weights.
"""

import json
import os
import shutil

import h5py
import numpy as np
import pytest
from bundles import bundle, field, strings, time_limit

import ckpttool
from ckpttool.errors import CheckpointError, ConversionError, CorruptionError, FormatError
from ckpttool.formats.hdf5 import plan_hdf5, read_hdf5, write_hdf5
from ckpttool.formats.saved_model.layer_names import layer_names
from ckpttool.model.object_keys import OBJECT_GRAPH_KEY, VALUE
from ckpttool.model.roles import roles
from ckpttool.proto import message_class
from ckpttool.transforms.variables import rename
from ckpttool.wire.message import values

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def keras(tf):
    """Keras 2, which loads weights by name."""
    return pytest.importorskip("tf_keras", reason="needs the extra `tensorflow`")


@pytest.fixture(scope="module")
def hdf5_format(keras):
    """The part of Keras that reads the file."""
    from tf_keras.src.saving.legacy import hdf5_format

    return hdf5_format


def filled(model, seed: int = 1):
    """The model with weights each of which is like no other."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(generator.normal(size=weight.shape).astype(weight.dtype.as_numpy_dtype))
    return model


def saved(tf, weights, prefix):
    """A checkpoint of weights by their names, as a saver of TensorFlow 1 makes it."""
    names = [weight.name.removesuffix(":0") for weight in weights]
    values = [weight.value() for weight in weights]
    tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names), tensors=values)
    return prefix


def require_loaded(made, path, expected) -> None:
    """Asserts that a model, after it loaded the file by names, has the weights of another one, bit for bit."""
    filled(made, seed=2).load_weights(path, by_name=True)
    assert len(made.weights) == len(expected)
    for ours, theirs in zip(made.weights, expected, strict=True):
        assert ours.numpy().tobytes() == np.asarray(theirs).tobytes(), ours.name


def exported(prefix, path, **options):
    write_hdf5(ckpttool.open_checkpoint(prefix), path, layout="keras", **options)
    return path


# Keras loads what we write


def of_every_kind(keras, name: str):
    """A model whose layers have weights, layers and cells of their own, one of them a slash in its name."""
    layers = keras.layers
    given = keras.Input((8, 6))
    x = layers.LSTM(4, return_sequences=True, name="lstm")(given)
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True), name="both")(x)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.Conv1D(4, 2, name="conv")(x)
    x = layers.BatchNormalization(name="batch_norm")(x)
    x = layers.SeparableConv1D(4, 2, name="separable")(x)
    x = layers.Flatten()(layers.PReLU(name="prelu")(x))
    x = layers.Dense(3, name="block/dense")(x)
    return keras.Model(given, layers.Dense(3, name="out")(x), name=name)


def test_every_layer_is_loaded_by_name(tf, keras, tmp_path):
    """From a checkpoint of names such as lstm/lstm_cell/kernel, load_weights gives each layer its own, bit for bit."""
    trained = filled(of_every_kind(keras, "trained"))
    path = exported(saved(tf, trained.weights, tmp_path / "model"), tmp_path / "weights.h5", strict=True)
    require_loaded(of_every_kind(keras, "fresh"), path, trained.weights)


def layers_of(keras):
    layers = keras.layers
    return [
        layers.Conv2D(2, 3, name="conv", input_shape=(5, 5, 1)),
        layers.BatchNormalization(name="norm"),
        layers.Flatten(name="flat"),
        layers.Dense(3, name="head"),
    ]


def test_what_a_session_trained(tf, keras, tmp_path):
    """A model trained and saved in a session of TensorFlow 1 is loaded by Keras; Adam's slots are left out."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        output = tf.ones((2, 5, 5, 1))
        made = layers_of(keras)
        for layer in made:
            output = layer(output, training=True) if layer.name == "norm" else layer(output)
        step = tf.compat.v1.train.get_or_create_global_step()
        train = tf.compat.v1.train.AdamOptimizer(0.1).minimize(tf.reduce_sum(output**2), step)
        session.run(tf.compat.v1.global_variables_initializer())
        session.run(train, options=tf.compat.v1.RunOptions(timeout_in_ms=30_000))
        tf.compat.v1.train.Saver().save(session, str(tmp_path / "model"), write_meta_graph=False)
        expected = session.run([weight for layer in made for weight in layer.weights])
    keras.backend.clear_session()
    checkpoint = ckpttool.open_checkpoint(tmp_path / "model")
    left_out = write_hdf5(checkpoint, tmp_path / "weights.h5", layout="keras")
    reasons = {planned.variable.name: planned.problem for planned in left_out}
    assert len(checkpoint) - len(reasons) == len(expected) == 8
    assert reasons["head/kernel/Adam_1"] == "no weight of a layer: Adam slot"
    assert reasons["global_step"] == "no weight of a layer: global step"
    require_loaded(keras.Sequential(layers_of(keras)), tmp_path / "weights.h5", expected)
    with pytest.raises(ConversionError, match="no weight of a layer"):
        write_hdf5(checkpoint, tmp_path / "strict.h5", layout="keras", strict=True)


def test_an_object_based_checkpoint(tf, keras, tmp_path):
    """Of a checkpoint whose keys are objects, the weights go by the names that its object graph gives them."""
    trained = keras.Sequential(layers_of(keras))
    trained.compile("adam", "mse")
    trained.fit(np.ones((2, 5, 5, 1)), np.ones((2, 3)), verbose=0)
    tf.train.Checkpoint(model=trained, optimizer=trained.optimizer).write(str(tmp_path / "model"))
    path = exported(tmp_path / "model", tmp_path / "weights.h5")
    require_loaded(keras.Sequential(layers_of(keras)), path, trained.weights)


def test_a_prefix_is_taken_away(tf, keras, tmp_path):
    """Where all names begin with the model's own scope, the layers are found after it was taken away."""
    trained = filled(keras.Sequential(layers_of(keras)))
    arrays = {f"tower_0/{weight.name.removesuffix(':0')}": weight.numpy() for weight in trained.weights}
    checkpoint = bundle(arrays).open(tmp_path)
    write_hdf5(rename(checkpoint, ["^tower_0/=>"]), tmp_path / "weights.h5", layout="keras", strict=True)
    require_loaded(keras.Sequential(layers_of(keras)), tmp_path / "weights.h5", trained.weights)


def test_layers_within_a_layer(tf, keras, tmp_path):
    """A layer that makes layers of its own gets their weights in the order in which it made them: dense_2 before 10."""

    class Stack(keras.layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.stack = [keras.layers.Dense(2, name=f"dense_{number}") for number in range(12)]
            self.norm = keras.layers.BatchNormalization(name="norm")

        def call(self, inputs):
            for layer in self.stack:
                inputs = layer(inputs)
            return self.norm(inputs)

    def model():
        return keras.Sequential([keras.Input((2,)), Stack(name="stack")])

    trained = filled(model())
    path = exported(saved(tf, trained.weights, tmp_path / "model"), tmp_path / "weights.h5")
    require_loaded(model(), path, trained.weights)
    with pytest.raises(ConversionError, match="its place among the weights of its layer is a guess"):
        exported(tmp_path / "model", tmp_path / "strict.h5", strict=True)  # norm before dense: who knows?


def parts_in_odd_orders(keras):
    """A model of layers whose weights are in no order of their names: one within, and those of somebody's own."""
    layers = keras.layers

    class Affine(layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight("scale", (4,))
            self.seen = self.add_weight("moving_mean", (4,), trainable=False)
            self.offset = self.add_weight("offset", (4,))

        def call(self, inputs):
            return inputs * self.scale + self.offset + self.seen

    cells = [layers.GRUCell(2, name="z"), layers.GRUCell(2, name="a")]
    return [
        *(Affine(name="affine"), layers.Normalization(axis=None, name="normal")),
        layers.BatchNormalization(renorm=True, name="renorm"),
        *(layers.Reshape((2, 2)), layers.RNN(cells, name="cells"), layers.Dense(4, name="out")),
    ]


def within(keras):
    layers = keras.layers
    inner = [layers.Dense(4, name="up"), layers.BatchNormalization(name="norm"), layers.Dense(4, name="down")]
    return [keras.Sequential(inner, name="block"), layers.TimeDistributed(layers.Dense(2, name="each"), name="times")]


def test_orders_that_no_name_tells(tf, keras, tmp_path):
    """An object graph and Keras' own HDF5 tell the order of any layer's weights: nothing is guessed, all is loaded."""

    def model():
        return keras.Sequential([keras.Input((4,)), *parts_in_odd_orders(keras)])

    trained = filled(model())
    trained.save_weights(tmp_path / "model")
    trained.save_weights(tmp_path / "model.h5")
    for source in ("model", "model.h5"):
        checkpoint = ckpttool.drop_slots(ckpttool.open_checkpoint(tmp_path / source))
        remarks = write_hdf5(checkpoint, tmp_path / "out.h5", layout="keras", force=True)
        assert {planned.remark for planned in remarks} <= COUNTED
        require_loaded(model(), tmp_path / "out.h5", trained.weights)
        write_hdf5(read_hdf5(tmp_path / "out.h5"), tmp_path / "again.h5", layout="keras", strict=True, force=True)
        require_loaded(model(), tmp_path / "again.h5", trained.weights)


COUNTED = {"left out: no weight of a layer: save counter"}


def test_layers_that_no_name_tells(keras, tmp_path):
    """A weight of Keras' own HDF5 stays in its layer, though its name has nothing of that: a model within a model."""

    def model():
        return keras.Sequential([keras.Input((3, 4)), *within(keras)])

    trained = filled(model())
    trained.save_weights(tmp_path / "model.h5")
    path = exported(tmp_path / "model.h5", tmp_path / "out.h5", strict=True)
    require_loaded(model(), path, trained.weights)
    by_position = filled(model(), seed=2)
    by_position.load_weights(path)
    for ours, theirs in zip(by_position.weights, trained.weights, strict=True):
        assert ours.numpy().tobytes() == theirs.numpy().tobytes()
    trained.save_weights(tmp_path / "model")
    plan = plan_hdf5(ckpttool.open_checkpoint(tmp_path / "model"), layout="keras")
    doubted = {planned.target.rpartition("/")[0] for planned in plan if "a model within" in (planned.doubt or "")}
    assert doubted == {"up/up", "norm/norm", "down/down"}


def test_names_of_layers_in_a_saved_model(keras, tmp_path):
    """A SavedModel has the names of all layers, in a file of its own or, of TensorFlow 2.4, among its objects."""

    def model():
        return keras.Sequential([keras.Input((3, 4)), *within(keras)])

    trained = filled(model())
    trained.save(tmp_path / "saved_model")
    require_loaded(model(), exported(tmp_path / "saved_model", tmp_path / "a.h5", strict=True), trained.weights)
    said = (tmp_path / "saved_model" / "keras_metadata.pb").read_bytes()
    metadata = {node[2][0]: node[5][0] for node in map(fields_of, fields_of(said)[1]) if 2 in node}
    graph = message_class("SavedModel").FromString((tmp_path / "saved_model" / "saved_model.pb").read_bytes())
    for number, text in metadata.items():
        graph.meta_graphs[0].object_graph_def.nodes[number].user_object.metadata = text.decode()
    (tmp_path / "saved_model" / "saved_model.pb").write_bytes(graph.SerializeToString())
    (tmp_path / "saved_model" / "keras_metadata.pb").unlink()
    require_loaded(model(), exported(tmp_path / "saved_model", tmp_path / "b.h5", strict=True), trained.weights)
    (tmp_path / "saved_model" / "keras_metadata.pb").write_bytes(said[:9])
    with pytest.raises(ConversionError, match="a model within"):
        exported(tmp_path / "saved_model", tmp_path / "c.h5", strict=True)


def test_names_of_layers_that_are_none(tmp_path):
    """A name that is no text takes none from the others; of a monstrous one, and of a file that is, little is read."""
    (tmp_path / "variables").mkdir()
    names = [b"a", b"\\ud800", b"\\x", b"\xff", b"a/" * 200, b"b" * 20_000_000, b"c"]
    nodes = (field(2, number) + field(5, b'{"name": "%s"}' % name) for number, name in enumerate(names, 1))
    metadata = tmp_path / "keras_metadata.pb"
    metadata.write_bytes(b"".join(field(1, node) for node in nodes))
    prefix = str(tmp_path / "variables" / "variables")
    with time_limit(1):
        assert layer_names(prefix) == {1: "a", 7: "c"}
        os.truncate(metadata, 1 << 40)
        assert layer_names(prefix) == {}


def fields_of(data):
    """The values of a message's fields by their numbers."""
    found = {}
    for number, _, value in values(data):
        found.setdefault(number, []).append(value)
    return found


@pytest.mark.parametrize("source", ["model.h5", "model", "saved_model"])
def test_layers_stay_when_they_are_written_again(keras, tmp_path, source):
    """Of a file that was written for Keras, weights have the layers that it lists: of a model within a model, too."""

    def model():
        layers = keras.layers
        inner = keras.Sequential([keras.Input((5,)), layers.Dense(6), layers.BatchNormalization()])
        return keras.Sequential([keras.Input((5,)), inner, layers.Dense(2)])

    trained = filled(model())
    trained.save_weights(tmp_path / "model.h5")
    trained.save_weights(tmp_path / "model")
    trained.save(tmp_path / "saved_model")
    again = exported(exported(tmp_path / source, tmp_path / "once.h5"), tmp_path / "again.h5")
    loaded = filled(model(), seed=2)
    loaded.load_weights(again)
    for ours, theirs in zip(loaded.weights, trained.weights, strict=True):
        assert ours.numpy().tobytes() == theirs.numpy().tobytes()


def test_a_layer_that_is_chosen(keras, run, tmp_path):
    """What is chosen, by any of its names, has the layers that it had with all the others; nothing is left out then."""

    def model():
        return keras.Sequential(
            [keras.Input((3,)), *(keras.layers.Dense(3, name=name) for name in ("first", "second"))]
        )

    trained = filled(model())
    trained.compile("adam", "mse")
    trained.fit(np.ones((1, 3)), np.ones((1, 3)), verbose=0)
    trained.save_weights(tmp_path / "model")
    for chosen in ("second/*", "layer_with_weights-1/*"):
        command = [
            "export",
            tmp_path / "model",
            "--h5",
            tmp_path / "out.h5",
            "--h5-layout",
            "keras",
            "--strict",
            "--force",
        ]
        said = run(*command, "--include", chosen)
        assert "wrote 2 variables" in said.stderr
        loaded = filled(model(), seed=2)
        loaded.load_weights(tmp_path / "out.h5", by_name=True)
        assert [np.array_equal(*each) for each in zip(loaded.weights, trained.weights, strict=True)] == [False] * 2 + [
            True
        ] * 2
    full = [*command, "--names", "full", "--drop-slots"]
    assert run(*full).exit_code == 0
    assert run(*command, "--names", "object", "--drop-slots").exit_code == 2
    refused = run(*command)
    assert refused.exit_code == 5
    assert "no weight of a layer: Adam slot" in refused.stderr
    assert run(*command, "--drop-slots").exit_code == 0


def test_one_name_for_two_weights(tf, tmp_path):
    """Two weights that an object graph gives one name are one if they are the same, and else an error."""
    ones, twos = (tf.Variable(tf.fill([2], value), name="same/v") for value in (1.0, 2.0))
    again = tf.Variable(ones, name="same/v")
    tf.train.Checkpoint(a=ones, b=again).write(str(tmp_path / "twice"))
    write_hdf5(ckpttool.open_checkpoint(tmp_path / "twice"), tmp_path / "twice.h5", layout="keras", strict=True)
    with h5py.File(tmp_path / "twice.h5") as file:
        assert list(file["same/same"]) == ["v:0"]
    tf.train.Checkpoint(a=ones, b=twos).write(str(tmp_path / "two"))
    with pytest.raises(ConversionError, match="would both be the weight same/v:0"):
        plan_hdf5(ckpttool.open_checkpoint(tmp_path / "two"), layout="keras")


def test_models_of_keras_3_within_models(tf, tmp_path):
    """Whatever stores it, a layer of a model within a model is one whose weights may not be found."""
    keras = pytest.importorskip("keras", minversion="3")
    layers = keras.layers
    inner = [layers.Dense(4, name="up"), layers.BatchNormalization(name="norm")]
    block = keras.Sequential([keras.Input((3,)), *inner], name="block")
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="first"), block, layers.Dense(2, name="last")])
    tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
    tf.saved_model.save(model, str(tmp_path / "saved_model"))
    model.compile("adam", "mse")
    model.fit(np.ones((1, 3)), np.ones((1, 2)), verbose=0)
    tf.train.Checkpoint(model=model).write(str(tmp_path / "trained"))  # Of which the optimizer has a list, too.
    for source in ("checkpoint", "saved_model", "trained"):
        plan = plan_hdf5(ckpttool.open_checkpoint(tmp_path / source), layout="keras")
        doubted = {planned.target.split("/")[-2] for planned in plan if "a model within" in (planned.doubt or "")}
        assert doubted == {"up", "norm"}


def test_a_model_of_keras_3_by_its_layers(tf, tmp_path):
    """In a checkpoint of Keras 3 the model's own name stands in front; its layers are found all the same."""
    keras = pytest.importorskip("keras", minversion="3")

    def model():
        layers = [keras.layers.Dense(4, name="dense"), keras.layers.BatchNormalization(name="norm")]
        return keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(2, name="out")])

    trained = filled_3(model())
    tf.train.Checkpoint(model=trained).write(str(tmp_path / "model"))
    trained.export(str(tmp_path / "exported"), verbose=False)
    for source in ("model", "exported"):
        path = exported(tmp_path / source, tmp_path / f"{source}.h5")
        made = model()
        made.load_weights(path, by_name=True)
        assert [w.numpy().tobytes() for w in made.weights] == [w.numpy().tobytes() for w in trained.weights]


def filled_3(model):
    generator = np.random.default_rng(7)
    for weight in model.weights:
        weight.assign(generator.normal(size=weight.shape))
    return model


def test_lists_that_no_attribute_holds(hdf5_format, tmp_path):
    """Lists of more than 64 KB, of weights and of layers, are cut as Keras cuts them, and Keras reads them whole."""
    names = [f"wide/{'x' * 200}_{number:03}/kernel" for number in range(400)]
    names += [f"{'y' * 200}_{number:03}/kernel" for number in range(400)]
    checkpoint = bundle({name: np.full(1, number, np.float32) for number, name in enumerate(names)}).open(tmp_path)
    write_hdf5(checkpoint, tmp_path / "weights.h5", layout="keras", strict=True)
    with h5py.File(tmp_path / "weights.h5") as file:
        assert {"layer_names0", "layer_names1"} <= set(file.attrs)
        assert {"weight_names0", "weight_names1"} <= set(file["wide"].attrs)
        layers = hdf5_format.load_attributes_from_hdf5_group(file, "layer_names")
        assert len(layers) == len(set(layers)) == 801
        weights = hdf5_format.load_attributes_from_hdf5_group(file["wide"], "weight_names")
        assert weights == [f"{name}:0" for name in names[:400]]
        values = hdf5_format.load_subset_weights_from_hdf5_group(file["wide"])
        assert [int(value[0]) for value in values] == list(range(400))
    assert sorted(read_hdf5(tmp_path / "weights.h5")) == sorted(names)


def test_names_that_repeat_themselves(tmp_path):
    """Links for layers within layers never take the place of a dataset."""
    names = ["a/a/k", "a/a/a/k", "a/b/a/b/k", "a/b/a/b/a/b/k", "a/k"]
    checkpoint = bundle({name: np.full(2, number, np.float32) for number, name in enumerate(names)}).open(tmp_path)
    write_hdf5(checkpoint, tmp_path / "weights.h5", layout="keras")
    found = read_hdf5(tmp_path / "weights.h5")
    assert {name: int(found[name].numpy()[0]) for name in found} == {name: i for i, name in enumerate(names)}
    with h5py.File(tmp_path / "weights.h5") as file:
        for layer in file.attrs["layer_names"]:
            group = file[layer.decode()]
            for weight in group.attrs["weight_names"]:
                assert group[weight.decode()][0] == names.index(weight.decode().removesuffix(":0"))


def test_what_has_no_layer_is_said(tmp_path):
    """A variable without a scope can be no layer's weight: the plan says so."""
    checkpoint = bundle({"alone": np.ones(1, np.float32), "a/b": np.ones(1, np.float32)}).open(tmp_path)
    problems = {planned.variable.name: planned.problem for planned in plan_hdf5(checkpoint, layout="keras")}
    assert problems == {"alone": "its name has no layer in front", "a/b": None}


def test_the_layout_changes_no_byte_of_the_way_back(tf, keras, tmp_path):
    """A file for Keras has all that a bundle needs: the way back is that of the same variables without Keras."""
    trained = filled(of_every_kind(keras, "trained"))
    path = exported(saved(tf, trained.weights, tmp_path / "model"), tmp_path / "weights.h5")
    exported(tmp_path / "model", tmp_path / "twice.h5")
    assert path.read_bytes() == (tmp_path / "twice.h5").read_bytes()
    found = read_hdf5(path)
    assert found.warnings == ()
    ckpttool.write_bundle(found, tmp_path / "back", strict=True)
    ckpttool.write_bundle(ckpttool.open_checkpoint(tmp_path / "model"), tmp_path / "direct", strict=True)
    for suffix in (".index", ".data-00000-of-00001"):
        assert (tmp_path / f"back{suffix}").read_bytes() == (tmp_path / f"direct{suffix}").read_bytes()


# We read what Keras saves


def bits(checkpoint) -> dict[str, bytes]:
    return {name: variable.numpy().tobytes() for name, variable in checkpoint.items()}


def of_weights(weights) -> dict[str, bytes]:
    return {weight.name.removesuffix(":0"): weight.numpy().tobytes() for weight in weights}


@pytest.fixture(scope="module")
def trained(keras, tmp_path_factory):
    """A model of Keras 2 after a step, and the files that it saves."""
    keras.backend.clear_session()
    model = keras.Sequential(layers_of(keras))
    model.compile("adam", "mse")
    model.fit(np.ones((2, 5, 5, 1)), np.ones((2, 3)), verbose=0)
    folder = tmp_path_factory.mktemp("keras2")
    model.save_weights(folder / "weights.h5")
    model.save(folder / "model.h5")
    return model, folder


def test_weights_of_keras_2(trained):
    """`save_weights` gives every weight under the name that it has in the model."""
    model, folder = trained
    found = read_hdf5(folder / "weights.h5")
    assert found.warnings == ()
    assert bits(found) == of_weights(model.weights)


def test_whole_model_of_keras_2(trained):
    """`save` gives the optimizer's variables too, by their names: its slots are known for what they are."""
    model, folder = trained
    found = read_hdf5(folder / "model.h5")
    assert bits(found) == of_weights(model.weights) | of_weights(model.optimizer.variables)
    slots = {name for name, role in roles(found.keys()).items() if role.text == "Adam slot"}
    assert slots >= {"Adam/m/head/kernel", "Adam/v/head/kernel"}
    assert not slots & set(of_weights(model.weights))


def test_from_keras_to_a_checkpoint(tf, trained, tmp_path):
    """What Keras saved becomes a checkpoint that TensorFlow restores, weight by weight."""
    model, folder = trained
    ckpttool.write_bundle(read_hdf5(folder / "weights.h5"), tmp_path / "model", strict=True)
    reader = tf.train.load_checkpoint(str(tmp_path / "model"))
    assert {name: reader.get_tensor(name).tobytes() for name in reader.get_variable_to_shape_map()} == of_weights(
        model.weights
    )


@pytest.fixture(scope="module")
def trained_3(tf, tmp_path_factory):
    """The same of Keras 3."""
    keras = pytest.importorskip("keras", minversion="3")
    keras.utils.clear_session()
    layers = [keras.layers.Dense(3, name="hidden"), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile("adam", "mse")
    model.fit(np.ones((2, 4)), np.ones((2, 2)), verbose=0)
    folder = tmp_path_factory.mktemp("keras3")
    model.save_weights(folder / "model.weights.h5")
    model.save(folder / "model.h5")
    return model, folder


def test_weights_of_keras_3(trained_3):
    """In a .weights.h5 weights are numbered in their layers: layers/dense/vars/0; the optimizer's are there."""
    model, folder = trained_3
    found = read_hdf5(folder / "model.weights.h5")
    assert found.warnings == ()
    groups = {"dense": model.layers[0], "batch_normalization": model.layers[1], "dense_1": model.layers[2]}
    expected = {
        f"layers/{group}/vars/{number}": weight.numpy().tobytes()
        for group, layer in groups.items()
        for number, weight in enumerate(layer.weights)
    }
    optimizer = {f"optimizer/vars/{n}": v.numpy().tobytes() for n, v in enumerate(model.optimizer.variables)}
    assert bits(found) == expected | optimizer


@pytest.mark.parametrize("save", ["save_weights", "save"])
def test_bfloat16_of_keras_3(save, tmp_path):
    """Keras 3 stores bfloat16 as bytes without a type; of weights alone an attribute says what they are, and of a whole
    model they can be nothing else.
    """
    keras = pytest.importorskip("keras", minversion="3")
    keras.utils.clear_session()
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d", dtype="bfloat16")])
    model.layers[0].set_weights([np.arange(6.0).reshape(3, 2) / 7, np.array([1.5, -2])])
    path = tmp_path / ("m.weights.h5" if save == "save_weights" else "m.h5")
    getattr(model, save)(path)
    found = read_hdf5(path)
    assert found.warnings == ()
    assert {variable.dtype.name for variable in found.values()} == {"bfloat16"}
    stored = [np.asarray(weight.value).view(np.uint16).tobytes() for weight in model.weights]
    assert sorted(variable.numpy().tobytes() for variable in found.values()) == sorted(stored)


def test_a_model_that_is_not_zipped(tmp_path):
    """A directory that Keras 3 saves a model as leads to its weights; a checkpoint that stands there goes before."""
    keras = pytest.importorskip("keras", minversion="3.9")
    keras.utils.clear_session()
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.save(tmp_path / "model", zipped=False)
    found = ckpttool.open_checkpoint(tmp_path / "model")
    assert bits(found) == {
        f"layers/dense/vars/{number}": weight.numpy().tobytes() for number, weight in enumerate(model.weights)
    }
    bundle({"w": np.zeros(1)}).write(tmp_path / "model")
    assert list(ckpttool.open_checkpoint(tmp_path / "model")) == ["w"]


# Keras 3's weights in shards


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """A directory with the weights of a model in a `.weights.h5`, and in shards too small for a layer."""
    keras = pytest.importorskip("keras", minversion="3.10")
    keras.utils.clear_session()
    inner = keras.Sequential([keras.layers.Dense(3), keras.layers.BatchNormalization()])
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(9), inner, keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.fit(np.ones((2, 3)), np.ones((2, 2)), verbose=0)
    path = tmp_path_factory.mktemp("sharded")
    model.save_weights(path / "whole.weights.h5")
    model.save_weights(path / "model.weights.json", max_shard_size=110 / 1024**3)
    assert len(list(path.glob("model_*"))) > 3
    return path


@pytest.fixture
def shards(sharded, tmp_path):
    """A copy of it, to be changed; and its index."""
    shutil.copytree(sharded, tmp_path / "in")
    return tmp_path / "in", json.loads((sharded / "model.weights.json").read_text())


def test_weights_in_shards_are_those_of_one_file(sharded, tmp_path):
    """What the shards hold is what Keras writes into one file, by the same names; the directory leads to them."""
    found = ckpttool.open_checkpoint(sharded / "model.weights.json")
    whole = read_hdf5(sharded / "whole.weights.h5")
    assert found.warnings == ()
    assert bits(found) == bits(whole)
    assert not ckpttool.compare(found, ckpttool.open_checkpoint(sharded)).is_different
    assert {name: variable.layer for name, variable in found.items()} == {
        name: variable.layer for name, variable in whole.items()
    }
    assert ckpttool.verify(sharded).findings == []
    write_hdf5(found, tmp_path / "a.h5", layout="keras")
    write_hdf5(whole, tmp_path / "b.h5", layout="keras")
    assert bits(read_hdf5(tmp_path / "a.h5")) == bits(read_hdf5(tmp_path / "b.h5"))


def test_one_of_the_shards(run, sharded):
    """A shard is read for itself, and said to be one."""
    result = run("vars", sharded / "model_00001.weights.h5")
    assert f"this is one of several shards; all are in {sharded / 'model.weights.json'}" in result.stderr


def test_an_index_of_names(shards):
    """Older releases name a file, and not a list of one."""
    path, index = shards
    index["weight_map"] = {
        group: names[0] if len(names) == 1 else names for group, names in index["weight_map"].items()
    }
    (path / "model.weights.json").write_text(json.dumps(index))
    assert bits(ckpttool.open_checkpoint(path)) == bits(read_hdf5(path / "whole.weights.h5"))


def test_a_shard_that_is_missing(shards):
    """It is said by name; what the others have is verified and can be saved."""
    path, _ = shards
    (path / "model_00001.weights.h5").unlink()
    with pytest.raises(CorruptionError, match=r"it names 'model_00001.weights.h5', which is missing"):
        ckpttool.open_checkpoint(path)
    verified = ckpttool.verify(path)
    assert "model_00001" in verified.findings[0].what
    assert verified.whole


def test_a_shard_that_is_a_pointer(shards):
    """A clone without Git LFS has the index itself, and pointers for the rest: they are named."""
    path, _ = shards
    (path / "model_00000.weights.h5").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:c1e4\n")
    with pytest.raises(FormatError, match="a Git LFS pointer"):
        ckpttool.open_checkpoint(path)


def test_an_index_and_shards_that_disagree(shards):
    """What the index says to be in a file, and is not, is damage; what a file has besides is told, and passed over."""
    path, index = shards
    index["weight_map"]["/layers/no/vars"] = ["model_00000.weights.h5"]
    index["weight_map"]["/layers/dense/vars"] = ["model_00001.weights.h5"]
    (path / "model.weights.json").write_text(json.dumps(index))
    with pytest.raises(CorruptionError, match="the index says that /layers/no/vars is in model_00000"):
        ckpttool.open_checkpoint(path)
    faults: list[CheckpointError] = []
    found = ckpttool.open_checkpoint(path, faults=faults)
    assert len(faults) == 1
    assert [name for name in found if name.startswith("layers/dense/")] == ["layers/dense/vars/1"]
    assert [text.partition(" is in ")[0] for text in found.warnings] == ["layers/dense/vars/0"]


@pytest.mark.parametrize("name", ["../whole.weights.h5", "/etc/passwd", "", 1, ["model_00000.weights.h5"], None])
def test_an_index_that_names_no_file_beside_it(shards, name):
    """An index is made by anybody: it can name only files beside it."""
    path, index = shards
    index["weight_map"]["/layers/dense/vars"] = [name]
    (path / "model.weights.json").write_text(json.dumps(index))
    with pytest.raises(FormatError):
        ckpttool.open_checkpoint(path)


@pytest.mark.parametrize("name", ["m.h5", "m.weights.h5", "m.keras"])
def test_bfloat16_of_keras_2(keras, tmp_path, name):
    """Keras 2 stores it in the same way, and says nothing of it anywhere."""
    layer = keras.layers.Dense(2, dtype="bfloat16", input_shape=(3,))
    model = filled(keras.Sequential([layer]))
    getattr(model, "save" if name == "m.keras" else "save_weights")(tmp_path / name)
    found = ckpttool.open_checkpoint(tmp_path / name)
    assert {variable.dtype.name for variable in found.values()} == {"bfloat16"}
    assert sorted(bits(found).values()) == sorted(weight.numpy().tobytes() for weight in model.weights)


def test_averages_and_accumulators_of_keras_3_are_slots(tmp_path):
    """What an optimizer keeps for averaging and for accumulated gradients is no weight."""
    keras = pytest.importorskip("keras", minversion="3")
    keras.utils.clear_session()
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.Adam(use_ema=True, gradient_accumulation_steps=2), "mse")
    model.fit(np.ones((2, 3)), np.ones((2, 2)), verbose=0)
    model.save(tmp_path / "m.h5")
    left = ckpttool.drop_slots(read_hdf5(tmp_path / "m.h5"))
    assert sorted(left) == sorted(weight.path for weight in model.weights)


def test_whole_model_of_keras_3(trained_3):
    """A whole .h5 model gives the weights by their paths in the model, and the optimizer's by theirs."""
    model, folder = trained_3
    found = read_hdf5(folder / "model.h5")
    expected = [*model.weights, *model.optimizer.variables]
    assert bits(found) == {weight.path: weight.numpy().tobytes() for weight in expected}


def test_two_layers_with_weights_of_one_name(keras, tmp_path):
    """Where two models within a model have a layer of the same name, the weights' names begin with the models'."""

    def part(name):
        return keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="dense")], name=name)

    left, right = filled(part("left"), 3), filled(part("right"), 4)
    model = keras.Sequential([left, right, keras.layers.Dense(1, name="out")])
    model.build((None, 2))
    for path in (tmp_path / "weights.h5", tmp_path / "model.h5"):
        model.save(path) if path.stem == "model" else model.save_weights(path)
        found = bits(read_hdf5(path))
        assert set(found) >= {"left/dense/kernel", "right/dense/kernel", "out/kernel"}
        assert "dense/kernel" not in found
        assert found["left/dense/kernel"] == left.weights[0].numpy().tobytes()
        assert found["right/dense/kernel"] == right.weights[0].numpy().tobytes()


def test_layers_of_weights_alone_have_their_own_names(keras, run, tmp_path):
    """In a .weights.h5 `layers/dense_1` is the second Dense, and its name an attribute: by that one it is found."""
    keras_3 = pytest.importorskip("keras", minversion="3")
    layers = [keras_3.layers.Dense(4, name=name) for name in ("dense_1", "dense")]
    inner = keras_3.Sequential([keras_3.Input((4,)), keras_3.layers.Dense(4, name="within")], name="inner")
    model = filled_3(keras_3.Sequential([keras_3.Input((4,)), *layers, inner]))
    model.save_weights(tmp_path / "a.weights.h5")
    arguments = ["export", tmp_path / "a.weights.h5", "--h5", tmp_path / "a.h5", "--h5-layout", "keras"]
    result = run(*arguments, "--strict")
    assert result.exit_code == 0, result.stderr
    parts = [keras.layers.Dense(4, name=name) for name in ("dense_1", "dense")]
    within = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="within")], name="inner")
    require_loaded(keras.Sequential([keras.Input((4,)), *parts, within]), tmp_path / "a.h5", model.get_weights())
    with h5py.File(tmp_path / "a.weights.h5", "r+") as file:
        for group in ("dense", "dense_1"):
            del file[f"layers/{group}/vars"].attrs["name"]
    assert "the name of its layer is not stored" in run(*arguments, "--force").stderr
    assert run(*arguments, "--force", "--strict").exit_code == 5


def test_parts_of_a_layer_are_a_guess_in_weights_alone(run, tmp_path):
    """A .weights.h5 does not say which weights are not trained, and Keras has those of all parts last."""
    keras_3 = pytest.importorskip("keras", minversion="3")
    parts = [keras_3.layers.BatchNormalization(name=name) for name in ("one", "two")]
    inner = keras_3.Sequential([keras_3.Input((3,)), *parts], name="inner")
    twelve = [keras_3.layers.Dense(3) for _ in range(12)]
    both = keras_3.layers.Bidirectional(keras_3.layers.LSTM(2))
    arguments = ["--h5-layout", "keras", "--strict", "--force", "--h5", tmp_path / "a.h5", "export"]
    for layers, code in (([inner], 5), (twelve, 0), ([keras_3.layers.Reshape((1, 3)), both], 0)):
        filled_3(keras_3.Sequential([keras_3.Input((3,)), *layers])).save_weights(tmp_path / "a.weights.h5")
        assert run(*arguments[-1:], tmp_path / "a.weights.h5", *arguments[:-1]).exit_code == code
    filled_3(keras_3.Sequential([keras_3.Input((3,)), *twelve])).save_weights(tmp_path / "a.weights.h5")
    write_hdf5(ckpttool.open_checkpoint(tmp_path / "a.weights.h5"), tmp_path / "b.h5", layout="keras")
    with h5py.File(tmp_path / "b.h5") as file:
        assert [name.decode() for name in file.attrs["layer_names"]] == [layer.name for layer in twelve]


@pytest.mark.parametrize("count", [2, 12])
def test_layers_are_in_the_order_of_the_model(keras, tmp_path, count):
    """Where names differ, Keras loads by position: the order of the layers is kept, whatever their names are."""

    def model(letters):
        layers = [keras.layers.Dense(3, name=letter) for letter in letters[:count]]
        return keras.Sequential([keras.Input((3,)), *layers])

    source = filled(model("zyxwvutsrqponm"))
    source.save_weights(tmp_path / "a.h5")
    source.save_weights(tmp_path / "a")
    source.save(tmp_path / "whole.h5")
    for path in ("a.h5", "a", "whole.h5"):
        write_hdf5(ckpttool.open_checkpoint(tmp_path / path), tmp_path / "b.h5", layout="keras", force=True)
        made = model("bcdefghijklmno")
        made.load_weights(tmp_path / "b.h5")
        for ours, theirs in zip(made.weights, source.weights, strict=True):
            assert ours.numpy().tobytes() == theirs.numpy().tobytes()


def test_what_stands_among_an_optimizers_weights_is_its(keras, run, tmp_path):
    """In the HDF5 of a whole model they have a group of their own: no name has to tell."""
    keras_3 = pytest.importorskip("keras", minversion="3")

    def layers(of):
        return [of.layers.Input((3,)), of.layers.Dense(2), of.layers.BatchNormalization()]

    schedule = keras_3.optimizers.schedules.CosineDecay(0.1, 10)
    inner = keras.optimizers.Adam(use_ema=True)
    for of, optimizer in (
        (keras_3, keras_3.optimizers.SGD(schedule, momentum=0.9)),
        (keras, keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam())),
        (keras, inner),
        (keras, keras.optimizers.legacy.Nadam()),
    ):
        model = of.Sequential(layers(of))
        model.compile(optimizer, "mse")
        model.fit(np.ones((2, 3)), np.ones((2, 2)), verbose=0)
        model.save(tmp_path / "m.h5")
        assert run("export", tmp_path / "m.h5", "--npz", tmp_path / "m.npz", "--drop-slots", "--force").exit_code == 0
        assert len(np.load(tmp_path / "m.npz").files) == len(model.weights) == 6
        found = plan_hdf5(ckpttool.open_checkpoint(tmp_path / "m.h5"), layout="keras")
        assert sum(not planned.problem for planned in found) == 6
        if of is keras:  # And by the object graph.
            model.save_weights(tmp_path / "m")
            left = ckpttool.drop_slots(ckpttool.open_checkpoint(tmp_path / "m"))
            named = [name for name in left if name.endswith("/.ATTRIBUTES/VARIABLE_VALUE")]
            assert [name for name in named if name.startswith("optimizer/")] == []
            assert len(named) == 6 + ("save_counter/.ATTRIBUTES/VARIABLE_VALUE" in left)


@pytest.mark.parametrize(
    "name", ["Adam", "AdamW", "Nadam", "Adamax", "RMSprop", "SGD", "Adagrad", "Adadelta", "Ftrl", "Lion"]
)
def test_keras_3s_optimizers_are_told_from_weights(run, tmp_path, name):
    """Of what Keras 3 saves of a model, whole or weights alone, --drop-slots leaves the weights, and only them."""
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2), keras.layers.BatchNormalization()])
    options = {"RMSprop": {"momentum": 0.9, "centered": True}, "SGD": {"momentum": 0.9}, "Adam": {"amsgrad": True}}
    inner = getattr(keras.optimizers, name)(**options.get(name, {}))
    model.compile(keras.optimizers.LossScaleOptimizer(inner) if name == "AdamW" else inner, "mse")
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "whole.h5")
    model.save_weights(tmp_path / "alone.weights.h5")
    for file in ("whole.h5", "alone.weights.h5"):
        assert run("export", tmp_path / file, "--npz", tmp_path / f"{file}.npz", "--drop-slots", "-q").exit_code == 0
        left = np.load(tmp_path / f"{file}.npz")
        assert len(left.files) == len(model.weights) == 6, sorted(left.files)[6:]
        assert sorted(v.tobytes() for v in left.values()) == sorted(w.numpy().tobytes() for w in model.weights)


# The layers that an object graph tells


def layers_in_layers(keras, names: str):
    """A model with a layer of every kind that has others, under names that are given."""
    layers = keras.layers
    each = iter(names)
    given = keras.Input((4, 6))
    inner = keras.Sequential(
        [layers.Dense(6, name="up"), layers.BatchNormalization(), layers.Dense(6, name="down")], name=next(each)
    )
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True), name=next(each))(given)
    x = layers.MultiHeadAttention(2, 3, name=next(each))(x, x)
    x = layers.TimeDistributed(inner, name=next(each))(x)
    x = layers.Dropout(0.1)(inner(layers.GlobalAveragePooling1D()(x)))
    x = layers.Reshape((2, 3))(x)
    x = layers.RNN([layers.GRUCell(2), layers.LSTMCell(3)], name=next(each))(x)
    return keras.Model(given, layers.Dense(3, name=next(each))(x))


def require_loaded_by_position(made, path, expected) -> None:
    """As `require_loaded`, without names."""
    filled(made, seed=2).load_weights(path)
    for ours, theirs in zip(made.weights, expected, strict=True):
        assert ours.numpy().tobytes() == np.asarray(theirs).tobytes(), ours.name


def test_layers_that_an_object_graph_tells(tf, keras, tmp_path):
    """An object graph tells the layers: Keras loads them by position, whatever they and their parts are called."""
    trained = filled(layers_in_layers(keras, "zyxwvu"))
    trained.save_weights(tmp_path / "model")
    trained.save(tmp_path / "saved_model")
    tf.train.Checkpoint(net=trained, step=tf.Variable(1)).write(str(tmp_path / "within"))
    for source in ("model", "saved_model", "within"):
        path = exported(tmp_path / source, tmp_path / f"{source}.h5")
        require_loaded_by_position(layers_in_layers(keras, "abcdef"), path, trained.weights)
        with h5py.File(path) as file:
            assert len(file.attrs["layer_names"]) == 6
            assert {b"y", b"x", b"v", b"u"} < set(file.attrs["layer_names"])


def test_a_frozen_layer_in_a_saved_model(keras, tmp_path):
    """A SavedModel has lists of what is trained, which Keras has first: part of a model within may not be."""

    def model(seed):
        made = filled(keras.Sequential([keras.Input((3, 4)), *within(keras)]), seed)
        made.layers[0].layers[0].trainable = made.layers[0].layers[1].trainable = False
        return made

    trained = model(1)
    trained.save(tmp_path / "saved_model")
    path = exported(tmp_path / "saved_model", tmp_path / "a.h5")
    require_loaded_by_position(model(2), path, trained.weights)


def test_the_layers_of_a_model_within_that_is_chosen(keras, run, tmp_path):
    """Where only the weights of a model within the model are taken, its layers are listed, and found by name."""

    def inner():
        return keras.Sequential([keras.layers.Dense(3, name="up"), keras.layers.Dense(3, name="down")])

    backbone = inner()
    model = filled(keras.Sequential([keras.Input((3,)), backbone, keras.layers.Dense(2, name="head")]))
    model.save_weights(tmp_path / "model")
    chosen = ["--include", "layer_with_weights-0/**", "--h5", tmp_path / "a.h5", "--h5-layout", "keras", "--strict"]
    result = run("export", tmp_path / "model", *chosen)
    assert result.exit_code == 0, result.stderr
    made = inner()
    made.build((None, 3))
    require_loaded(made, tmp_path / "a.h5", backbone.weights)
    require_loaded_by_position(made, tmp_path / "a.h5", backbone.weights)


def test_layers_of_one_name_in_two_models_within(keras, tmp_path):
    """Weights of one name are two, where an object graph tells that they are of two layers."""

    def model():
        parts = [keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="dense")]) for _ in range(2)]
        return keras.Sequential([keras.Input((2,)), *parts, keras.layers.Dense(1, name="out")])

    trained = filled(model())
    trained.save_weights(tmp_path / "model")
    path = exported(tmp_path / "model", tmp_path / "a.h5")
    require_loaded_by_position(model(), path, trained.weights)
    assert len(read_hdf5(path)) == 6


def test_several_models_are_found_by_names(tf, keras, tmp_path):
    """Of two models in a checkpoint, nothing tells which one's positions are meant: every scope is a layer."""

    def model(name):
        lstm = keras.layers.LSTM(2, name=f"{name}_lstm")
        return keras.Sequential([keras.Input((4, 3)), lstm, keras.layers.Dense(1, name=name)])

    one, two = filled(model("one"), 3), filled(model("two"), 4)
    tf.train.Checkpoint(one=one, two=two).write(str(tmp_path / "model"))
    path = exported(tmp_path / "model", tmp_path / "a.h5")
    require_loaded(model("one"), path, one.weights)
    require_loaded(model("two"), path, two.weights)


def test_positions_of_keras_3(tf, keras, tmp_path):
    """The layers of Keras 3 are in a list: they are loaded by position, and by name unless they are models."""
    keras_3 = pytest.importorskip("keras", minversion="3")

    def model(of, names):
        layers, (inner, *each) = of.layers, names
        block = of.Sequential([of.Input((3,)), layers.Dense(4, name="up"), layers.BatchNormalization()], name=inner)
        rnn = layers.Bidirectional(layers.LSTM(2), name=each[0])
        last = layers.Dense(2, name=each[1])
        return of.Sequential([of.Input((3,)), layers.Dropout(0.5), block, layers.Reshape((2, 2)), rnn, last])

    trained = filled_3(model(keras_3, "zyx"))
    tf.train.Checkpoint(model=trained).write(str(tmp_path / "checkpoint"))
    tf.saved_model.save(trained, str(tmp_path / "saved_model"))
    for source in ("checkpoint", "saved_model"):
        path = exported(tmp_path / source, tmp_path / f"{source}.h5")
        require_loaded_by_position(model(keras, "abc"), path, trained.get_weights())
        with h5py.File(path) as file:
            assert list(file.attrs["layer_names"]) == [b"z", b"y", b"x"]


def test_layers_that_share_what_is_below_take_no_time(tmp_path):
    """A graph of many layers that all have the same objects is walked a number of times, and no more."""
    from ckpttool.formats.hdf5.model_layers import layers_of_model
    from ckpttool.formats.hdf5.models import Models
    from ckpttool.model.object_graph import ObjectGraph

    made = message_class("TrackableObjectGraph")()
    count = 2000
    nodes = [made.nodes.add() for _ in range(2 * count)]
    for number in range(count):
        nodes[0].children.add(local_name=f"layer_with_weights-{number}", node_id=1 + number % (count - 1))
        nodes[1 + number % (count - 1)].children.add(local_name="part", node_id=count)
    for number in range(count, 2 * count - 1):
        nodes[number].children.add(local_name="part", node_id=number + 1)
    key = "k/.ATTRIBUTES/VARIABLE_VALUE"
    nodes[-1].attributes.add(name="VARIABLE_VALUE", full_name="a/k", checkpoint_key=key)
    graph = ObjectGraph(made.SerializeToString())
    walks = []
    graph.as_made = lambda start=0: walks.append(start) or ObjectGraph.as_made(graph, start)
    assert layers_of_model(Models(graph), {key: "a/k"}, {}) == []
    assert len(walks) < 300


def object_graph(*nodes):
    """The message of an object graph: of each object the children, by (name, number), and the attributes' (full name,
    key)."""
    made = message_class("TrackableObjectGraph")()
    for children, attributes in nodes:
        node = made.nodes.add()
        for name, number in children:
            node.children.add(local_name=name, node_id=number)
        for name, key in attributes:
            node.attributes.add(name="VARIABLE_VALUE", full_name=name, checkpoint_key=key)
    return made.SerializeToString()


def layers_told(data, names):
    from ckpttool.formats.hdf5.model_layers import layers_of_model
    from ckpttool.formats.hdf5.models import Models
    from ckpttool.model.object_graph import ObjectGraph

    return layers_of_model(Models(ObjectGraph(data)), names, {})


def test_lists_of_layers_that_many_have_take_no_time():
    """A long list that many objects have, or that one has many times, and a model within itself."""
    count, key = 20_000, f"k{VALUE}"
    layers, weight = [(f"l{number}", 2 + number) for number in range(count)], ([], [("a/k", key)])
    shared = object_graph((layers, []), (layers, []), *[([("_layers", 1)], [(f"a/{n}", key)]) for n in range(count)])
    lists = [("trainable_variables", 2)] * count
    repeated = object_graph(([("layer-0", 1)], []), (lists, []), ([(str(n), 3) for n in range(count)], []), weight)
    inner = [("layer_with_weights-0", 1), ("layer_with_weights-1", 2), *((f"c{n}", 3) for n in range(count))]
    looped = object_graph(([("m", 1)], []), (inner, []), ([], []), weight)
    with time_limit(10):
        assert layers_told(shared, {key: "a/k"}) == []
        for data in (repeated, looped):
            (layer,) = layers_told(data, {key: "a/k"})
            assert layer.keys == [key]


def test_a_monstrous_name_that_many_layers_share(run, tmp_path):
    """No layer is told of a weight with such a name, as often as it would be there."""
    count, name = 4000, "a/" * 50_000 + "k"
    nodes = [([(f"layer-{n}", 2 + n) for n in range(count)], []), ([], [(name, f"k{VALUE}")])]
    data = object_graph(*nodes, *[([("kernel", 1)], []) for _ in range(count)])
    values = {OBJECT_GRAPH_KEY: strings(data).reshape(()), f"k{VALUE}": np.ones(2, np.float32)}
    with time_limit(5):
        done = run("export", bundle(values).write(tmp_path), "--h5", tmp_path / "a.h5", "--h5-layout", "keras")
    assert "no layer of Keras is within more than" in done.output


def test_what_a_layer_lists_and_is_no_value(run, tmp_path):
    """A list of what is trained may have an object of which something else than a value is stored."""
    other = "o/.ATTRIBUTES/OTHER"
    data = object_graph(
        ([("layer-0", 1)], []),
        ([("trainable_variables", 2), ("kernel", 3)], []),
        ([("0", 3), ("1", 4)], []),
        ([], [("dense/kernel", f"k{VALUE}")]),
        ([], [("dense/other", other)]),
    )
    values = {OBJECT_GRAPH_KEY: strings(data).reshape(()), f"k{VALUE}": np.ones(2), other: np.ones(3)}
    done = run("export", bundle(values).write(tmp_path), "--h5", tmp_path / "a.h5", "--h5-layout", "keras")
    assert done.exit_code == 0, done.output
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["dense/dense/kernel:0"][:].tolist() == [1, 1]


def test_a_layer_whose_name_no_group_can_have(run, tmp_path):
    """A name that HDF5 takes for the way there is written as a scope of that name is, and can be found."""
    data = object_graph(([("layer-0", 1)], []), ([("kernel", 2)], []), ([], [("./k", f"k{VALUE}")]))
    values = {OBJECT_GRAPH_KEY: strings(data).reshape(()), f"k{VALUE}": np.ones(2, np.float32)}
    run("export", bundle(values).write(tmp_path), "--h5", tmp_path / "a.h5", "--h5-layout", "keras")
    with h5py.File(tmp_path / "a.h5") as file:
        (layer,) = file.attrs["layer_names"]
        assert [file[layer][name][:].tolist() for name in file[layer].attrs["weight_names"]] == [[1, 1]]


@pytest.mark.parametrize(("name", "is_said"), [("a.weights.h5", True), ("a.h5", False)])
def test_a_name_by_which_keras_expects_another_layout(keras, run, tmp_path, name, is_said):
    """The end of a file's name tells Keras its layout: of a .weights.h5 with this one, it loads nothing."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="dense")])
    values = {"dense/kernel": np.ones((2, 3), np.float32), "dense/bias": np.ones(3, np.float32)}
    arguments = ["export", bundle(values).write(tmp_path), "--h5", tmp_path / name, "--h5-layout", "keras"]
    for more in (["--dry-run"], []):
        assert ("name it .h5 alone" in run(*arguments, *more).stderr) == is_said
    if is_said:
        with pytest.raises((ValueError, KeyError)):
            model.load_weights(tmp_path / name)
    else:
        model.load_weights(tmp_path / name)
        assert all(weight.min() == 1 for weight in model.get_weights())


def test_layers_of_weights_alone_without_names(keras, run, tmp_path):
    """tf.keras stores no names in a .weights.h5: a layer is called as Keras calls one without, and it is said."""
    keras.backend.clear_session()

    def model():
        layers = [
            keras.layers.Dense(4),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(4),
            keras.layers.Dense(4),
        ]
        return keras.Sequential([keras.Input((4,)), *layers])

    trained = filled(model())
    trained.compile("adam", "mse", metrics=["mae"])
    trained.fit(np.ones((1, 4)), np.ones((1, 4)), verbose=0)
    trained.save_weights(tmp_path / "a.weights.h5")
    with h5py.File(tmp_path / "a.weights.h5") as ours, h5py.File(tmp_path / "b.weights.h5", "w") as theirs:
        ours.copy("metrics", theirs)
        for group in ours["layers"]:  # TensorFlow 2.13 counts each layer twice.
            kind, _, number = group.rpartition("_")
            twice = f"{kind}_{2 * int(number)}" if number.isdecimal() else group
            ours.copy(f"layers/{group}", theirs, f"_layer_checkpoint_dependencies/{twice}")
    for name in "ab":
        arguments = ["export", tmp_path / f"{name}.weights.h5", "--h5", tmp_path / "c.h5", "--h5-layout", "keras"]
        said = run(*arguments, "--force").stderr
        assert "the name of its layer is not stored" in said
        assert "metrics/mean/vars/0 and 3 more variables: left out: no weight of a layer: metric" in said
        keras.backend.clear_session()
        require_loaded(model(), tmp_path / "c.h5", trained.weights)
        assert run(*arguments, "--force", "--strict").exit_code == 5
