"""Which variables, and under which names: choosing, renaming, dropping slots, moving averages."""

import numpy as np
import pytest
from bundles import bundle, examples, strings
from conftest import FIXTURES
from hypothesis import given
from hypothesis import strategies as st

import ckpttool
from ckpttool.errors import ConversionError
from ckpttool.formats import notes
from ckpttool.formats.notes import notes_of
from ckpttool.model.object_keys import OBJECT_GRAPH_KEY
from ckpttool.transforms.changes import Changes, change
from ckpttool.transforms.variables import Rule, idle, new_names

AVERAGE = "ExponentialMovingAverage"
CONV, OBJECTS, SLOTS = FIXTURES / "conv" / "model", FIXTURES / "objects" / "model-1", FIXTURES / "slots" / "model"


def scalars(*names: str) -> dict[str, np.ndarray]:
    """A variable for each name, all of different values."""
    return {name: np.float32(number) for number, name in enumerate(names)}


def opened(tmp_path, *names: str) -> ckpttool.Checkpoint:
    return bundle(scalars(*names)).open(tmp_path)


def values(checkpoint: ckpttool.Checkpoint) -> dict[str, float]:
    return {name: float(variable.numpy()) for name, variable in checkpoint.items()}


# Choosing


def test_select_without_patterns_is_the_checkpoint(tmp_path):
    """Nothing asked for changes nothing: the same object comes back."""
    checkpoint = opened(tmp_path, "a", "b")
    assert ckpttool.select(checkpoint) is checkpoint
    assert ckpttool.select(checkpoint, ["*"]) is checkpoint
    assert ckpttool.rename(checkpoint, ["x=>y"]) is checkpoint
    assert ckpttool.drop_slots(checkpoint) is checkpoint


def test_the_object_graph_comes_along_only_if_it_is_asked_to():
    """A pattern for variables leaves the object graph out, or with `with_object_graph` takes it along."""
    checkpoint = ckpttool.open_checkpoint(OBJECTS)
    some = next(name for name in checkpoint if name != OBJECT_GRAPH_KEY)
    assert list(ckpttool.select(checkpoint, [some])) == [some]
    assert set(ckpttool.select(checkpoint, [some], with_object_graph=True)) == {some, OBJECT_GRAPH_KEY}


@pytest.mark.parametrize(("include", "exclude"), [(["nothing"], []), ([], ["*"]), ([], [OBJECT_GRAPH_KEY])])
def test_the_object_graph_does_not_come_along(include, exclude):
    """It does not where nothing else is chosen, nor where a pattern excludes it."""
    chosen = ckpttool.select(ckpttool.open_checkpoint(OBJECTS), include, exclude, with_object_graph=True)
    assert OBJECT_GRAPH_KEY not in chosen


# Names

NAMES = ["bert/layer_0/w", "bert/layer_1/w", "global_step", "other/bert/w"]
RENAMED: dict[str, tuple[list[str], str, list[str]]] = {
    "at the start": (["^bert/=>"], "", ["layer_0/w", "layer_1/w", "global_step", "other/bert/w"]),
    "anywhere, as often as it is there": (["e=>E"], "", [name.replace("e", "E") for name in NAMES]),
    "a group": ([r"layer_(\d)=>layers/\1"], "", ["bert/layers/0/w", "bert/layers/1/w", *NAMES[2:]]),
    "a named group": ([r"(?P<n>\d)=>\g<n>0"], "", ["bert/layer_00/w", "bert/layer_10/w", *NAMES[2:]]),
    "the whole match": ([r"^bert=>x/\g<0>"], "", ["x/bert/layer_0/w", "x/bert/layer_1/w", *NAMES[2:]]),
    "in order": (["^bert/=>b/", "^b/=>c/"], "", ["c/layer_0/w", "c/layer_1/w", *NAMES[2:]]),
    "not in the other order": (["^b/=>c/", "^bert/=>b/"], "", ["b/layer_0/w", "b/layer_1/w", *NAMES[2:]]),
    "a swap": (["_0=>_x", "_1=>_0", "_x=>_1"], "", ["bert/layer_1/w", "bert/layer_0/w", *NAMES[2:]]),
    "without case": (["(?i)BERT/=>"], "", ["layer_0/w", "layer_1/w", "global_step", "other/w"]),
    "case counts": (["BERT=>x"], "", NAMES),
    "a dollar is none": (["^global(.)=>$1"], "", [*NAMES[:2], "$1step", NAMES[3]]),
    "an arrow in the replacement": (["global=>a=>b"], "", [*NAMES[:2], "a=>b_step", NAMES[3]]),
    "an arrow in the pattern": ([r"o\x3d>=>a"], "", NAMES),
    "a group that took no part": ([r"(x)?bert=>\1b"], "", ["b/layer_0/w", "b/layer_1/w", NAMES[2], "other/b/w"]),
    "a prefix": ([], "bert/", ["layer_0/w", "layer_1/w", "global_step", "other/bert/w"]),
    "a prefix once": (["^bert/=>a/a/"], "a/", ["a/layer_0/w", "a/layer_1/w", *NAMES[2:]]),
    "a prefix is no regular expression": ([], "b.rt/", NAMES),
    "a prefix of what the rules have made": (["^bert=>x"], "x/", ["layer_0/w", "layer_1/w", *NAMES[2:]]),
}


@pytest.mark.parametrize(("rules", "prefix", "after"), RENAMED.values(), ids=RENAMED)
def test_rename(tmp_path, rules, prefix, after):
    """Rules do what re.sub does, in order; then the prefix goes; each variable keeps its value."""
    renamed = ckpttool.rename(opened(tmp_path, *NAMES), rules, strip_prefix=prefix)
    assert values(renamed) == {name: float(number) for number, name in enumerate(after)}


def test_rename_by_a_mapping(tmp_path):
    """Old names with the new ones: whole names, two may change places, and one that is not there is an error."""
    renamed = ckpttool.rename(opened(tmp_path, "a", "b", "x/a.b"), {"a": "b", "b": "a"}, strip_prefix="x/")
    assert values(renamed) == {"a": 1, "a.b": 2, "b": 0}
    with pytest.raises(ckpttool.NotFoundError, match=r"no variable ab to be renamed .* near names: a.b"):
        ckpttool.rename(opened(tmp_path, "a.b"), {"ab": "c"})
    with pytest.raises(TypeError, match="names are texts"):
        ckpttool.rename(opened(tmp_path, "a"), {"a": 3})


NO_RULES = {
    "no arrow": ("bert", "is not REGEX=>REPL"),
    "no pattern": ("=>x", "is not REGEX=>REPL"),
    "an open group": ("(bert=>x", "unterminated subpattern"),
    "a group that is not there": (r"bert=>\1", "invalid group reference 1"),
    "a named group that is not there": (r"(?P<n>a)=>\g<m>", "unknown group name 'm'"),
    "an escape that is none": (r"bert=>\q", r"bad escape \\q"),
    "too many repetitions": ("a{99999999999}=>x", "repetition number is too large"),
    "too deep": (f"{'(' * 5000}{')' * 5000}=>x", "recursion"),
}


@pytest.mark.parametrize(("text", "why"), NO_RULES.values(), ids=NO_RULES)
def test_no_rules(text, why):
    """What is no rule is a ValueError that says why, before any name is seen."""
    with pytest.raises(ValueError, match=why):
        Rule.parse(text)


def test_collisions_name_both(tmp_path):
    """Two variables of one new name are an error with both old names and the new one."""
    checkpoint = opened(tmp_path, "a/w", "b/w", "c")
    with pytest.raises(ckpttool.ConversionError, match="'a/w' and 'b/w' would both be named 'w'"):
        ckpttool.rename(checkpoint, ["^[ab]/=>"])
    with pytest.raises(ckpttool.ConversionError, match="'b/w' and 'c' would both be named 'b/w'"):
        ckpttool.rename(checkpoint, ["^c$=>b/w"])


def test_no_name_may_be_empty(tmp_path):
    """A variable of which no name is left is an error with its name."""
    with pytest.raises(ckpttool.ConversionError, match=r"no name would be left .* 'a'"):
        ckpttool.rename(opened(tmp_path, "a", "ab"), [], strip_prefix="a")


def test_names_that_are_not_utf_8_are_renamed(tmp_path):
    """Bytes that are no text survive a rule for the rest of the name."""
    made = bundle(scalars("w"))
    made.records[b"a/\xff"] = made.records.pop(b"w")
    renamed = ckpttool.rename(made.open(tmp_path), ["^a/=>b/"])
    assert [name.encode(errors="surrogateescape") for name in renamed] == [b"b/\xff"]
    ckpttool.write_bundle(renamed, tmp_path / "out")
    assert list(ckpttool.open_checkpoint(tmp_path / "out")) == list(renamed)


def test_the_object_graph_keeps_its_name():
    """No rule reaches the object graph: TensorFlow looks for it by its name."""
    assert new_names([OBJECT_GRAPH_KEY, "_C"], [Rule.parse("_C=>x")], "_CHECK") == {
        OBJECT_GRAPH_KEY: OBJECT_GRAPH_KEY,
        "_C": "x",
    }


def test_variables_stand_in_the_order_of_their_new_names(tmp_path):
    """Where variables are stored in the order of their names, they are so under the new names, as TensorFlow's are."""
    renamed = ckpttool.rename(opened(tmp_path, "a", "b", "c"), ["a=>z"])
    assert list(renamed) == ["b", "c", "z"]
    ckpttool.write_bundle(renamed, tmp_path / "out")
    expected = bundle({"b": np.float32(1), "c": np.float32(2), "z": np.float32(0)})
    assert (tmp_path / "out.data-00000-of-00001").read_bytes() == expected.shards[0]


@examples
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3), st.binary(min_size=1, max_size=2))))
def test_places_are_those_of_the_sorted(keys):
    """Pieces have places where sorting them by these gives another order than their names do, and only there."""
    by_place = sorted(range(len(keys)), key=lambda i: (keys[i], i))
    by_name = sorted(range(len(keys)), key=lambda i: (keys[i][0], keys[i][2], i))
    expected = [None if by_place == by_name else by_place.index(i) for i in range(len(keys))]
    assert list(notes._places(keys)) == expected


def test_variables_that_stand_in_another_order_keep_it(tmp_path):
    """Where they are stored in an order of their own, it stays, and values stay beside their names."""
    checkpoint = bundle(scalars("b", "a", "c")).open(tmp_path)
    renamed = ckpttool.rename(checkpoint, ["^a$=>z"])
    assert {name: note.position for name, note in notes_of(renamed).items()} == {"b": 0, "z": 1, "c": 2}
    ckpttool.write_bundle(renamed, tmp_path / "out")
    assert values(ckpttool.open_checkpoint(tmp_path / "out")) == {"b": 0, "z": 1, "c": 2}


def test_partitioned_variables_are_renamed_with_their_slices(tmp_path):
    """A partitioned variable under another name keeps its slices and values, also in a bundle."""
    array = np.arange(6, dtype=np.float32).reshape(6, 1)
    extents = [((0, 2), (0, -1)), ((2, 4), (0, -1))]
    checkpoint = bundle({"p": array}, slices={"p": extents}, shards=2).open(tmp_path)
    ckpttool.write_bundle(ckpttool.rename(checkpoint, ["p=>q"]), tmp_path / "out")
    written = ckpttool.open_checkpoint(tmp_path / "out")
    assert [(list(written), piece.start, piece.shape) for piece in written["q"].slices] == [
        (["q"], (0, 0), (2, 1)),
        (["q"], (2, 0), (4, 1)),
    ]
    np.testing.assert_array_equal(written["q"].numpy(), array)


def test_what_is_idle_is_told():
    """A rule that matches nothing that the rules before it have left, and a prefix that nothing has, are told."""
    rules = [Rule.parse(text) for text in ("a=>b", "a=>c", "b=>a")]
    assert idle(["a", OBJECT_GRAPH_KEY], rules, "_") == ["'a=>c' matches no name", "no name begins with '_'"]
    assert idle(["a"], rules[:1], "b") == []


# Slots


def test_drop_slots_leaves_the_weights_and_the_averages():
    """By name: what optimizers keep goes, weights, steps and moving averages stay, values as they were."""
    checkpoint = ckpttool.open_checkpoint(CONV)
    left = ckpttool.drop_slots(checkpoint)
    assert set(checkpoint) - set(left) == {
        *("beta1_power", "beta2_power", "conv/kernel/Adam", "conv/kernel/Adam_1"),
        *("dense/kernel/Adam", "dense/kernel/Adam_1"),
    }
    assert "conv/kernel/ExponentialMovingAverage" in left
    np.testing.assert_array_equal(left["dense/kernel"].numpy(), checkpoint["dense/kernel"].numpy())


def test_slots_of_every_optimizer_are_dropped():
    """Of the fixture with every kind of slot, the weights and their average are left."""
    left = ckpttool.drop_slots(ckpttool.open_checkpoint(SLOTS))
    scopes = ("adadelta", "adagrad", "adam", "averaged", "bert", "ftrl", "momentum", "rmsprop")
    assert set(left) == {"Momentum", f"averaged/w/{AVERAGE}", *(f"{scope}/w" for scope in scopes)}


OPTIMIZERS = {
    "Adadelta": lambda train, step: train.AdadeltaOptimizer(),
    "Adagrad": lambda train, step: train.AdagradOptimizer(0.1),
    "AdagradDA": lambda train, step: train.AdagradDAOptimizer(0.1, step),
    "Adam": lambda train, step: train.AdamOptimizer(),
    "Ftrl": lambda train, step: train.FtrlOptimizer(0.1),
    "GradientDescent": lambda train, step: train.GradientDescentOptimizer(0.1),
    "Momentum": lambda train, step: train.MomentumOptimizer(0.1, 0.9, use_nesterov=True),
    "ProximalAdagrad": lambda train, step: train.ProximalAdagradOptimizer(0.1),
    "ProximalGradientDescent": lambda train, step: train.ProximalGradientDescentOptimizer(0.1),
    "RMSProp": lambda train, step: train.RMSPropOptimizer(0.1),
    "centered RMSProp": lambda train, step: train.RMSPropOptimizer(0.1, centered=True),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("scope", ["", "train"])
def test_tensorflows_optimizers_leave_their_variables(tf, tmp_path, scope):
    """Of a model trained by any of TensorFlow 1's optimizers, exactly what they trained and the step are left."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        step = v1.train.get_or_create_global_step()
        weights = [v1.get_variable(f"net/{name.replace(' ', '_')}/w", [2]) for name in OPTIMIZERS]
        for weight, make in zip(weights, OPTIMIZERS.values(), strict=True):
            with v1.variable_scope(scope):
                make(v1.train, step).minimize(tf.reduce_sum(weight**2), global_step=step, var_list=[weight])
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "m"), write_meta_graph=False)
        total = len(v1.global_variables())
    checkpoint = ckpttool.open_checkpoint(tmp_path / "m")
    assert len(checkpoint) == total > 2 * len(weights)
    assert set(ckpttool.drop_slots(checkpoint)) == {"global_step", *(weight.op.name for weight in weights)}


def test_a_slot_is_dropped_though_its_variable_is_not_chosen(tmp_path):
    """A slot is known by its variable also where patterns leave that one out."""
    checkpoint = opened(tmp_path, "w", "w/Adam", "other")
    changed = change(checkpoint, Changes(exclude=["w"], drop_slots=True))
    assert list(changed.checkpoint) == ["other"]
    assert changed.dropped == {"w/Adam": "Adam slot"}


# Moving averages


def test_averages_take_their_variables_places(tmp_path):
    """An average has its variable's name, below scopes too; a variable without one, and an average of none, stay."""
    names = ["a/w", f"a/w/{AVERAGE}", "b", f"train/b/{AVERAGE}", "c", f"loss/{AVERAGE}"]
    averaged = ckpttool.use_moving_averages(opened(tmp_path, *names))
    assert values(averaged) == {"a/w": 1, "b": 3, "c": 4, f"loss/{AVERAGE}": 5}


def test_debiasing_goes_with_the_averages(tmp_path):
    """What debiased averages are computed with is of no use once they are weights."""
    names = ["w", f"w/{AVERAGE}", f"w/{AVERAGE}/biased", f"w/{AVERAGE}/local_step"]
    assert values(ckpttool.use_moving_averages(opened(tmp_path, *names))) == {"w": 1}


def test_no_averages(tmp_path):
    """Without averages there is nothing to use: an error, not the variables as they were."""
    with pytest.raises(ckpttool.NotFoundError, match="no moving averages"):
        ckpttool.use_moving_averages(opened(tmp_path, "w", AVERAGE))


def test_two_averages_of_a_variable_collide(tmp_path):
    """Which of two averages is meant nobody can tell: both are named."""
    with pytest.raises(ckpttool.ConversionError, match=f"'a/w/{AVERAGE}' and 'w/{AVERAGE}' would both be named 'w'"):
        ckpttool.use_moving_averages(opened(tmp_path, "w", f"a/w/{AVERAGE}", f"w/{AVERAGE}"))


def test_an_average_is_chosen_without_its_variable(tmp_path):
    """A chosen average takes the name of a variable that is not chosen; one that is not chosen is not used."""
    checkpoint = opened(tmp_path, "v", f"v/{AVERAGE}", "w", f"w/{AVERAGE}")
    changed = change(checkpoint, Changes(include=[f"w/{AVERAGE}", "v"], use_averages=True))
    assert values(changed.checkpoint) == {"v": 0, "w": 3}
    assert changed.dropped == {}
    with pytest.raises(ckpttool.NotFoundError, match=r"no moving averages .* were not chosen"):
        change(checkpoint, Changes(include=["?"], use_averages=True))


def test_the_average_of_a_slot_is_dropped_with_the_slots(tmp_path):
    """An average in a slot's place is a slot."""
    checkpoint = opened(tmp_path, "w", f"w/{AVERAGE}", "w/Adam", f"w/Adam/{AVERAGE}")
    changed = change(checkpoint, Changes(use_averages=True, drop_slots=True))
    assert values(changed.checkpoint) == {"w": 1}
    assert changed.dropped[f"w/Adam/{AVERAGE}"] == "Adam slot"


@pytest.fixture(scope="module")
def averaging_model(tf, tmp_path_factory):
    """A model of TensorFlow 1 with moving averages: its prefix, and the averages by the variables' names."""
    v1, prefix = tf.compat.v1, str(tmp_path_factory.mktemp("ema") / "model.ckpt")
    with tf.Graph().as_default(), v1.Session() as session:
        with v1.variable_scope("net"):
            w = v1.get_variable("w", initializer=np.arange(6, dtype=np.float32).reshape(2, 3), use_resource=False)
            b = v1.get_variable("b", initializer=np.float32([1, -2]), use_resource=True)
        average = tf.train.ExponentialMovingAverage(0.5)
        with tf.control_dependencies([w.assign_add(w), b.assign_add(b)]):
            update = average.apply([w, b])
        session.run([w.initializer, b.initializer])
        session.run(v1.global_variables_initializer())
        session.run(update, options=v1.RunOptions(timeout_in_ms=20_000))
        expected = {v.op.name: session.run(average.average(v)) for v in (w, b)}
        v1.train.Saver().save(session, prefix, write_meta_graph=False)
    return prefix, expected


@pytest.mark.tensorflow
def test_a_plain_saver_restores_the_averages(tf, tmp_path, averaging_model):
    """After `use_moving_averages`, a Saver of the model without averages restores the averaged values."""
    (prefix, expected), v1 = averaging_model, tf.compat.v1
    ckpttool.write_bundle(ckpttool.use_moving_averages(ckpttool.open_checkpoint(prefix)), tmp_path / "out")
    with tf.Graph().as_default(), v1.Session() as session:
        for name, value in expected.items():
            v1.get_variable(name, value.shape)
        v1.train.Saver().restore(session, str(tmp_path / "out"))
        restored = {v.op.name: session.run(v) for v in v1.global_variables()}
    assert restored.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(restored[name], value)
        assert not np.array_equal(value, ckpttool.open_checkpoint(prefix)[name].numpy())


# All together


def test_everything_at_once(tmp_path):
    """Patterns are about the old names; averages, slots, dtypes and names follow in this order."""
    names = ["a/w", f"a/w/{AVERAGE}", "a/w/Adam", "a/step", "b/x"]
    arrays = scalars(*names) | {"a/step": np.int64(7)}
    changes = Changes(
        include=["a/**"],
        use_averages=True,
        drop_slots=True,
        dtypes={"float32": "float16"},
        rules=[Rule.parse("^a=>c")],
        strip_prefix="c/",
    )
    changed = change(bundle(arrays).open(tmp_path), changes)
    assert {name: (v.dtype.name, float(v.numpy())) for name, v in changed.checkpoint.items()} == {
        "step": ("int64", 7),
        "w": ("float16", 1),
    }
    assert changed.names == {"a/step": "step", f"a/w/{AVERAGE}": "w"}
    assert changed.dropped == {"a/w": "its moving average takes its place", "a/w/Adam": "Adam slot"}
    assert changed.averages == {f"a/w/{AVERAGE}": "a/w"}
    assert not changed.idle


def test_idle_changes_are_told(tmp_path):
    """Dropping slots where there are none, and casting what is not there, are told."""
    checkpoint = bundle({"w": np.float32(0), "s": strings(b"x")}).open(tmp_path)
    changed = change(checkpoint, Changes(drop_slots=True, dtypes={"float64": "float32"}))
    assert list(changed.idle) == ["there are no optimizers' slots to drop", "there is nothing to cast"]
    assert changed.checkpoint.keys() == checkpoint.keys()


def test_a_single_text_is_a_single_pattern(tmp_path):
    """A text for a list of patterns or rules is one of them, and not its letters."""
    checkpoint = ckpttool.open_checkpoint(FIXTURES / "conv" / "model")
    assert set(ckpttool.select(checkpoint, "conv/*")) == set(ckpttool.select(checkpoint, ["conv/*"])) != set()
    assert set(ckpttool.select(checkpoint, (), "conv/*")) == set(ckpttool.select(checkpoint, (), ["conv/*"]))
    assert set(ckpttool.rename(checkpoint, "^conv/=>c/")) == set(ckpttool.rename(checkpoint, ["^conv/=>c/"]))


def test_averages_whose_variables_are_not_stored(tmp_path):
    """Of averages alone, as a saver of these writes them, each takes the name of the variable it is of."""
    names = [f"a/{AVERAGE}", f"b/{AVERAGE}", "step"]
    found = ckpttool.use_moving_averages(opened(tmp_path, *names))
    assert values(found) == {"a": 0, "b": 1, "step": 2}


def test_averages_of_losses_take_no_places():
    """A checkpoint that averages only losses has no averages of variables; one of weights' averages may have both."""
    losses, weights = scalars(f"loss/{AVERAGE}", f"loss/{AVERAGE}/biased"), {"w": np.ones(2, np.float32)}
    with pytest.raises(ckpttool.NotFoundError, match=f"no moving averages .*: loss/{AVERAGE} is the average of no"):
        ckpttool.use_moving_averages(ckpttool.from_arrays(losses | weights))
    both = ckpttool.from_arrays(losses | weights | {f"w/{AVERAGE}": weights["w"]})
    changed = change(both, Changes(use_averages=True))
    assert sorted(changed.checkpoint) == [f"loss/{AVERAGE}", f"loss/{AVERAGE}/biased", "w"]
    assert changed.idle == [f"loss/{AVERAGE} is the average of no variable that is there: it stays as it is"]


def test_a_name_that_is_empty_from_the_start_is_no_renaming():
    """A variable without a name, which safetensors may have, stays so; only a rule that leaves none is an error."""
    checkpoint = ckpttool.from_arrays({"": 1.0, "a": 2.0})
    assert list(ckpttool.rename(checkpoint, ["^a=>b"])) == ["", "b"]
    with pytest.raises(ConversionError, match="no name would be left"):
        ckpttool.rename(ckpttool.select(checkpoint, ["a"]), ["^a=>"])
