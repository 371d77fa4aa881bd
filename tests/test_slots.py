"""Which variables are an optimizer's, by their names and those around them."""

import json

import numpy as np
import pytest
from bundles import time_limit
from conftest import FIXTURES

import ckpttool
from ckpttool.model.averages import averages_of_others
from ckpttool.model.object_graph import ObjectGraph
from ckpttool.model.roles import Role, roles
from ckpttool.model.slots import MOVING_AVERAGE, is_slot_of_part, optimizer_names, slot_owners
from ckpttool.proto import message_class

# Variables, and slots among them with their owners.
SLOTS: dict[str, tuple[list[str], dict[str, str]]] = {
    "Adam": (["w"], {"w/Adam": "Adam", "w/Adam_1": "Adam", "beta1_power": "Adam", "beta2_power": "Adam"}),
    "two Adams": (["w"], {"w/Adam": "Adam", "w/Adam_3": "Adam", "beta1_power_1": "Adam"}),
    "an Adam with a name": (
        ["a/w", "b", "b_1", "c/d", "c/d_1"],
        dict.fromkeys(("a/w/Mine", "a/w/Mine_1", "t/b/Mine", "t/b/Mine_1", "beta1_power", "beta2_power"), "Adam"),
    ),
    "two Adams with names": (
        ["w"],
        dict.fromkeys(("w/A", "w/A_1", "w/B", "w/B_1", "d/beta1_power", "d/beta2_power", "beta1_power_1"), "Adam"),
    ),
    "an Adam with a name that has a number": (
        ["w"],
        dict.fromkeys(("w/opt_1", "w/opt_1_1", "beta1_power", "beta2_power"), "Adam"),
    ),
    "two Adams, and a pair of weights below a variable": (
        ["w", "w/mask", "w/mask_1"],
        dict.fromkeys(
            (
                *("w/Adam", "w/Adam_1", "w/Adam_2", "w/Adam_3"),
                *("beta1_power", "beta2_power", "beta1_power_1", "beta2_power_1"),
            ),
            "Adam",
        ),
    ),
    "powers in a scope": (["w"], {"train/beta1_power": "Adam", "train/beta2_power_1": "Adam"}),
    "in a scope": (["dense/w"], {"train/dense/w/Adam": "Adam", "a/b/dense/w/Momentum": "Momentum"}),
    "partitioned, in a scope": (
        ["dnn/w", "dnn/b"],
        {
            "dnn/w/t_0/Adagrad": "Adagrad",
            "dnn/w/t_12/Adam_1": "Adam",
            "dnn/w/nn/w/part_0/Adam": "Adam",
            "dnn/w/head/dnn/w/part_0/Ftrl_1": "Ftrl",
            "dnn/b//b/part_0/Momentum": "Momentum",
        },
    ),
    "Momentum": (["a/w"], {"a/w/Momentum": "Momentum", "a/w/Momentum_1": "Momentum"}),
    "RMSProp": (["w"], {"w/RMSProp": "RMSProp", "w/RMSProp_1": "RMSProp", "w/RMSProp_2": "RMSProp"}),
    "Adagrad": (["w"], {"w/Adagrad": "Adagrad", "w/AdagradDA_1": "Adagrad", "w/ProximalAdagrad": "Adagrad"}),
    "Adadelta": (["w"], {"w/Adadelta": "Adadelta", "w/Adadelta_1": "Adadelta"}),
    "Ftrl": (["w"], {"w/Ftrl": "Ftrl", "w/Ftrl_1": "Ftrl"}),
    "LARS": (["w"], {"w/LARSOptimizer": "LARS"}),
    "of contrib.opt": (
        ["w"],
        {"w/RegAdagrad": "Adagrad", "w/AddSignOptimizer": "AddSign", "w/PowerSignOptimizer": "PowerSign"}
        | dict.fromkeys(("w/Shampoo", "w/Shampoo_1", "w/Shampoo_2"), "Shampoo"),
    ),
    "AdaMax": (["w"], {"w/AdaMax": "AdaMax", "w/AdaMax_1": "AdaMax"}),
    "BERT": (["bert/w"], {"bert/w/adam_m": "Adam or LAMB", "bert/w/adam_v": "Adam or LAMB"}),
    "LAMB": (["w"], {"w/LAMB": "LAMB", "w/LAMB_1": "LAMB", "w/lamb_m": "LAMB"}),
    "Adafactor": (["a/w"], {"a/w_slot_vr": "Adafactor", "a/w_slot_vc": "Adafactor", "a/w_slot_v": "Adafactor"}),
    "moving average": (["w"], {"w/ExponentialMovingAverage": MOVING_AVERAGE}),
    "debiased average": (["m"], {"m/biased": MOVING_AVERAGE, "m/local_step": MOVING_AVERAGE}),
    "slot of a slot": (["w"], {"w/Adam": "Adam", "w/Adam/ExponentialMovingAverage": MOVING_AVERAGE}),
    "Keras, name in the middle": (["dense/w"], {"Adam/dense/w/m": "Adam", "training/Adam/dense/w/vhat": "Adam"}),
    "Keras, name at the end": (["dense/w"], {"Adam/m/dense/w": "Adam", "SGD/momentum/dense/w": "SGD"}),
    "Keras, numbered": (["w"], {"Adam_1/m/w": "Adam", "RMSprop/rms/w": "RMSprop", "Ftrl/linear/w": "Ftrl"}),
    "Keras 3": (
        ["model/dense/w", "model/dense/w2", "beta/iteration", "rm_sprop/model_dense_w3_momentum"],
        {
            "rm_sprop/iteration": "RMSprop",
            "rm_sprop/learning_rate": "RMSprop",
            "rm_sprop/model_dense_w_average_gradient": "RMSprop",
            "rm_sprop/model_dense_w2_momentum": "RMSprop",
        },
    ),
    "Keras 3, the second of a kind": (
        ["d/w"],
        {
            "nadam_1/iteration": "Nadam",
            "nadam_1/learning_rate": "Nadam",
            "nadam_1/d_w_velocity": "Nadam",
            "variable_2": "Nadam",
        },
    ),
    "Keras 3, weights alone": (
        ["layers/dense/vars/0"],
        {"optimizer/vars/0": "optimizer", "optimizer/vars/11": "optimizer"},
    ),
    "object-based, Keras by its keys": (
        ["opt/_trainable_variables/0/.ATTRIBUTES/VARIABLE_VALUE"],
        {
            "opt/_iterations/.ATTRIBUTES/VARIABLE_VALUE": "optimizer",
            "opt/_learning_rate/.ATTRIBUTES/VARIABLE_VALUE": "optimizer",
            "opt/_variables/2/.ATTRIBUTES/VARIABLE_VALUE": "optimizer",
        },
    ),
    "object-based, older Keras": (
        ["w/.ATTRIBUTES/VARIABLE_VALUE"],
        {
            "adam/iter/.ATTRIBUTES/VARIABLE_VALUE": "Adam",
            "adam/learning_rate/.ATTRIBUTES/VARIABLE_VALUE": "Adam",
            "adam/beta_1/.ATTRIBUTES/VARIABLE_VALUE": "Adam",
            "w/.OPTIMIZER_SLOT/adam/m/.ATTRIBUTES/VARIABLE_VALUE": "Adam",
        },
    ),
    "object-based, TensorFlow 1": (
        ["w/.ATTRIBUTES/VARIABLE_VALUE"],
        {
            "train/beta1_power/.ATTRIBUTES/VARIABLE_VALUE": "Adam",
            "w/.OPTIMIZER_SLOT/train/m/.ATTRIBUTES/VARIABLE_VALUE": "Adam",
        },
    ),
    "object-based": (
        ["w/.ATTRIBUTES/VARIABLE_VALUE"],
        {
            "w/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE": "optimizer",
            "optimizer/_variables/3/.ATTRIBUTES/VARIABLE_VALUE": "optimizer",
            "model/optimizer/_iterations/.ATTRIBUTES/VARIABLE_VALUE": "optimizer",
            "optimizer/_learning_rate/.ATTRIBUTES/VARIABLE_VALUE": "optimizer",
        },
    ),
}


@pytest.mark.parametrize(("variables", "slots"), SLOTS.values(), ids=SLOTS.keys())
def test_slots(variables: list[str], slots: dict[str, str]) -> None:
    """Slots are found with their owners, in whatever order the names stand, and their variables are none."""
    names = [*slots, *variables]
    assert slot_owners(names) == slots
    assert slot_owners(dict.fromkeys(reversed(names))) == slots


WEIGHTS: dict[str, list[str]] = {
    "nothing": [],
    "plain": ["w", "b", "dense/kernel", "dense/bias"],
    "an optimizer's name alone": ["Adam", "Momentum", "Adam_1", "RMSProp"],
    "an optimizer's name as a scope": ["Adam/kernel", "Momentum/w", "Ftrl/dense/kernel"],
    "no variable of that name": ["dense/Adam", "dense/kernel", "w/Momentum"],
    "a segment only alike": ["w", "w/Adams", "w/Adam_x", "w/Adam_", "w/adam", "w/MomentumX", "w/my_Adam"],
    "a longer variable of that name": ["kernel", "mykernel/Adam"],
    "a variable below": ["w/Adam/kernel", "w"],
    "batch normalization": ["bn/gamma", "bn/beta", "bn/moving_mean", "bn/moving_variance"],
    "a power alone": ["w", "w/Momentums", "beta1_power"],
    "pairs below a variable, and no Adam": ["w", "w/mask", "w/mask_1"],
    "powers only alike": ["beta1_power_x", "beta3_power", "my_beta1_power", "beta1_power/w", "beta1"],
    "Keras without the variable": ["Adam/m/dense/w", "Adam/dense/w/v", "Adam/m", "Adam/v"],
    "Keras' slots in another scope": ["w", "encoder/m/w", "decoder/w/v"],
    "a slot's name that is none of Keras'": ["w", "Adam/x/w", "Adam/w/x"],
    "an optimizer's name only alike": ["w", "MyAdam/m/w", "Adam2/m/w", "adam/m/w"],
    "Adafactor without the variable": ["w_slot_v", "_slot_v", "b", "b_slot_x"],
    "object-based": [
        "w/.ATTRIBUTES/VARIABLE_VALUE",
        "optimizer_net/_variables/0/.ATTRIBUTES/VARIABLE_VALUE",
        "save_counter/.ATTRIBUTES/VARIABLE_VALUE",
        "_CHECKPOINTABLE_OBJECT_GRAPH",
    ],
    "object-based, with one name of an optimizer's": [
        "net/_iterations/.ATTRIBUTES/VARIABLE_VALUE",
        "net/kernel/.ATTRIBUTES/VARIABLE_VALUE",
        "other/learning_rate/.ATTRIBUTES/VARIABLE_VALUE",
    ],
    "steps": ["global_step", "w", "local_step"],
    "slashes": ["/", "/Adam", "a//Adam", ""],
    "with a line break": ["w", "w/Adam\n", "beta1_power\n"],
}


@pytest.mark.parametrize("names", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_no_slots(names: list[str]) -> None:
    """Names that only look like slots are left alone."""
    assert slot_owners(names) == {}


def test_what_is_below_a_part_is_no_slot_but_by_its_name():
    """Of a partitioned variable's part, what is called as a slot is one; a weight of the same scope is none."""
    found = [is_slot_of_part(f"dnn/w/nn/w/part_0/{last}", {"dnn/w"}) for last in ("Adam", "Ftrl_1", "bias", "adam")]
    assert found == [True, True, False, False]


def test_names_of_many_digits_are_no_slots():
    """A name is looked at from its end, however many digits are in it."""
    with time_limit(5):
        assert roles([f"{'1' * 200_000}x/Adagrad", f"{'1' * 200_000}/Adagrad", f"a/{'1' * 200_000}/Adagrad"]) == {}


def test_the_object_graph_names_the_optimizers():
    """Keras 3's variables and TensorFlow 1's slots and powers are Adam's, and the variables they train are nobody's."""
    checkpoint = ckpttool.open_checkpoint(FIXTURES / "objects" / "model-1")
    owners = slot_owners(checkpoint, checkpoint.object_graph)
    assert {name.split("/.ATTRIBUTES")[0]: owner for name, owner in owners.items()} == dict.fromkeys(
        [
            *("model/tied/kernel/.OPTIMIZER_SLOT/train/m", "model/tied/kernel/.OPTIMIZER_SLOT/train/v"),
            *("train/beta1_power", "train/beta2_power", "opt/_iterations", "opt/_learning_rate"),
            *("opt/_variables/2", "opt/_variables/3"),
        ],
        "Adam",
    )


def test_only_optimizers_are_optimizers():
    """Of all objects of the fixture, the two optimizers are found."""
    graph = ckpttool.open_checkpoint(FIXTURES / "objects" / "model-1").object_graph
    assert {graph.paths[node]: name for node, name in optimizer_names(graph).items()} == {
        "opt": "Adam",
        "train": "Adam",
    }


VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
BOOKKEEPING = {
    "_CHECKPOINTABLE_OBJECT_GRAPH": "object graph",
    "save_counter" + VALUE: "save counter",
    "a/global_step" + VALUE: "global step",
    "dropout/seed_generator/seed_generator_state" + VALUE: "random state",
    "generator/_state_var" + VALUE: "random state",
    "it/.ATTRIBUTES/ITERATOR_STATE": "iterator",
    "t/.ATTRIBUTES/table-keys": "table",
    "t/.ATTRIBUTES/table-values": "table",
    "p/.ATTRIBUTES/py_state": "Python state",
    "layer/.ATTRIBUTES/OBJECT_CONFIG_JSON": "configuration",
}


@pytest.mark.parametrize(("name", "text"), BOOKKEEPING.items())
def test_bookkeeping(name, text):
    """What TensorFlow 2 stores beside what was trained is told by its key."""
    assert roles([name, "w" + VALUE]) == {name: (text, "bookkeeping")}


@pytest.mark.parametrize("name", ["global_step", "save_counter", "table-keys", "a/save_counter" + VALUE, "w" + VALUE])
def test_no_bookkeeping(name):
    """Names of TensorFlow 1, and objects that are only named alike, are weights."""
    assert roles([name]) == {}


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("optimizer", "name"), [("SGD", "SGD"), ("RMSprop", "RMSprop"), ("Adafactor", "Adafactor"), ("AdamW", "AdamW")]
)
def test_keras_optimizers_are_named(tf, tmp_path, run, optimizer, name):
    """A Keras model is saved with its optimizer: its weights are weights, and the rest has the optimizer's name."""
    import keras

    options = {"momentum": 0.5} if optimizer == "SGD" else {}
    model = keras.Sequential([keras.layers.Dense(2)])
    model.build((None, 3))
    model.compile(getattr(keras.optimizers, optimizer)(**options), "mse")
    model.optimizer.build(model.trainable_variables)
    tf.train.Checkpoint(model=model).save(str(tmp_path / "model"))
    document = json.loads(run("vars", tmp_path / "model-1", "--json").stdout)
    totals = {total["of"]: total["parameters"] for total in document["totals"]}
    assert totals["weights"] == model.count_params()
    assert {key for key in totals if key.startswith("slots")} == {f"slots ({name})"}


@pytest.mark.tensorflow
def test_adafactor_under_another_name(tf, tmp_path):
    """What it keeps of rows and columns is in lists of their own, and is its all the same."""
    keras = pytest.importorskip("tf_keras", reason="needs the extra `tensorflow`")
    model = keras.Sequential([keras.layers.Dense(3, input_shape=(4,))])
    model.compile(keras.optimizers.Adafactor(name="mine"), "mse")
    model.optimizer.build(model.trainable_variables)
    model.save_weights(tmp_path / "model")
    checkpoint = ckpttool.drop_slots(ckpttool.open_checkpoint(tmp_path / "model"))
    left = {place.full_name for place in checkpoint.places.values()}
    assert left - {"", "save_counter"} == {weight.name.removesuffix(":0") for weight in model.weights}


@pytest.mark.parametrize(("name", "label"), [("Adam", "Adam"), ("mine", "optimizer")])
def test_optimizers_of_tensorflow_2_9(name, label):
    """Its new optimizers have slots in lists of their own: one total has all that is one's, whatever it is called."""
    made = message_class("TrackableObjectGraph")()
    nodes = [made.nodes.add() for _ in range(8)]
    children = {0: [("layer", 1), ("optimizer", 2)], 1: [("kernel", 3)]}
    children[2] = [("_iterations", 4), ("_learning_rate", 5), ("_momentums", 6)]
    children[6] = [("0", 7)]
    for node, named in children.items():
        for child, number in named:
            nodes[node].children.add(local_name=child, node_id=number)
    full = {3: "dense/kernel", 4: "iteration", 5: "learning_rate", 7: f"{name}/m/dense/kernel"}
    for number, full_name in full.items():
        key = f"{number}/.ATTRIBUTES/VARIABLE_VALUE"
        nodes[number].attributes.add(name="VARIABLE_VALUE", full_name=full_name, checkpoint_key=key)
    keys = [f"{number}/.ATTRIBUTES/VARIABLE_VALUE" for number in full]
    assert slot_owners(keys, ObjectGraph(made.SerializeToString())) == dict.fromkeys(keys[1:], label)


def test_what_an_optimizer_of_tf_keras_has_once():
    """In a graph of tf.keras, rates and counters are the optimizer's, where all that it must have are there."""
    once = ["beta_1", "beta_2", "decay", "iter", "learning_rate"]
    names = ["dense/kernel", "training/Adam/dense/kernel/m", *(f"training/Adam/{name}" for name in once)]
    assert slot_owners(names) == dict.fromkeys(names[1:], "Adam")
    assert slot_owners(["mine/SGD/decay", "mine/SGD/x"]) == {}


def test_optimizers_of_keras_before_it_was_tf_keras():
    """Their slots are named after no variable: Keras 2.0 to 2.2 and tf.keras 1.4 to 1.12, and Keras 2.3."""
    weights = ["d1/kernel", "d1/bias", "v_1", "block/Variable", "head/m_0"]
    for rate, slots in (("lr", ["Variable", "Variable_1"]), ("learning_rate", ["m_0", "v_0_1", "vhat_0"])):
        own = ["Adam/iterations", f"Adam/{rate}", "Adam/beta_1", *(f"training/Adam/{slot}" for slot in slots)]
        own += ["Adam_1/iterations", f"Adam_1/{rate}", *(f"training_1/Adam/{slot}" for slot in slots)]
        found = roles([*weights, *own])
        assert sorted(found) == sorted(own)
        assert {role.text for role in found.values()} == {"Adam slot"}
    assert roles(["Adam/iterations", "training/Adam/Variable"]) == {}


def test_metrics_of_a_saved_keras_model_are_bookkeeping():
    """A SavedModel of a compiled model has what its metrics counted."""
    key = "keras_api/metrics/0/total/.ATTRIBUTES/VARIABLE_VALUE"
    assert roles([key])[key] == Role("metric", "bookkeeping")
    other = "metrics/0/total/.ATTRIBUTES/VARIABLE_VALUE"
    assert other not in roles([other])


TOGETHER = {
    "contrib.mixed_precision": (["good_steps", "bad_steps", "loss_scale"], "loss scale"),
    "tf.train.experimental": (["a/good_steps", "a/current_loss_scale"], "loss scale"),
    "tf.keras": (["o/good_steps" + VALUE, "o/current_loss_scale" + VALUE], "loss scale"),
    "contrib.layers.optimize_loss": (["OptimizeLoss/learning_rate", "a/OptimizeLoss_1/learning_rate"], "learning rate"),
    "moving_averages": (["m/WeightedMovingAvg/value_x_weight", "m/WeightedMovingAvg/weight"], "weighted average"),
}


@pytest.mark.parametrize(("names", "text"), TOGETHER.values(), ids=TOGETHER.keys())
def test_bookkeeping_by_names(names, text):
    """What TensorFlow 1 has beside weights is told by names that stand together; one alone is anybody's."""
    weights = ["w", "weight", "m/weight", "good_steps_x", "b/learning_rate", "c/good_steps", "d/loss_scale"]
    assert roles([*names, *weights]) == dict.fromkeys(names, Role(text, "bookkeeping"))


def test_averages_of_losses_are_bookkeeping():
    """They are scalars beside weights that are not; what is of a variable, or has neighbors, is none of them."""
    losses = ["loss/Mean/ExponentialMovingAverage", "total_loss/avg", "Accuracy/Mean/moving_avg"]
    debiasing = ["loss/Mean/ExponentialMovingAverage/biased", "loss/Mean/ExponentialMovingAverage/local_step"]
    weights = ["w", "b", "w/ExponentialMovingAverage", "b/ExponentialMovingAverage", "norm/avg", "norm/std", "b/avg"]
    shapes = {"w": (2,), "w/ExponentialMovingAverage": (2,), "codes/ExponentialMovingAverage": (2,)}
    names = [*losses, *debiasing, *weights, "codes/ExponentialMovingAverage"]
    checkpoint = ckpttool.from_arrays({name: np.zeros(shapes.get(name, ()), np.float32) for name in names})
    assert averages_of_others(checkpoint) == {*losses, *debiasing}
    found = roles(checkpoint, averages=averages_of_others(checkpoint))
    assert {name for name, role in found.items() if role == Role("average of no variable", "bookkeeping")} == {
        *losses,
        *debiasing,
    }
