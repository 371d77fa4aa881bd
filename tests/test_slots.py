"""Which variables are an optimizer's, by their names and those around them."""

import pytest

from ckpttool.model.slots import MOVING_AVERAGE, slot_owners

# Variables, and slots among them with their owners.
SLOTS: dict[str, tuple[list[str], dict[str, str]]] = {
    "Adam": (["w"], {"w/Adam": "Adam", "w/Adam_1": "Adam", "beta1_power": "Adam", "beta2_power": "Adam"}),
    "two Adams": (["w"], {"w/Adam": "Adam", "w/Adam_3": "Adam", "beta1_power_1": "Adam"}),
    "powers in a scope": (["w"], {"train/beta1_power": "Adam", "train/beta2_power_1": "Adam"}),
    "in a scope": (["dense/w"], {"train/dense/w/Adam": "Adam", "a/b/dense/w/Momentum": "Momentum"}),
    "Momentum": (["a/w"], {"a/w/Momentum": "Momentum", "a/w/Momentum_1": "Momentum"}),
    "RMSProp": (["w"], {"w/RMSProp": "RMSProp", "w/RMSProp_1": "RMSProp", "w/RMSProp_2": "RMSProp"}),
    "Adagrad": (["w"], {"w/Adagrad": "Adagrad", "w/AdagradDA_1": "Adagrad", "w/ProximalAdagrad": "Adagrad"}),
    "Adadelta": (["w"], {"w/Adadelta": "Adadelta", "w/Adadelta_1": "Adadelta"}),
    "Ftrl": (["w"], {"w/Ftrl": "Ftrl", "w/Ftrl_1": "Ftrl"}),
    "LARS": (["w"], {"w/LARSOptimizer": "LARS"}),
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
    "steps": ["global_step", "w", "local_step"],
    "slashes": ["/", "/Adam", "a//Adam", ""],
    "with a line break": ["w", "w/Adam\n", "beta1_power\n"],
}


@pytest.mark.parametrize("names", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_no_slots(names: list[str]) -> None:
    """Names that only look like slots are left alone."""
    assert slot_owners(names) == {}
