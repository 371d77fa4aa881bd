"""Variables of other dtypes: the numbers are TensorFlow's, what is lost is counted right, whatever the blocks."""

import itertools
import math
import platform
import struct
import subprocess
import sys
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from bundles import bundle, strings

import ckpttool
from ckpttool.errors import ConversionError
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.dtypes import DTYPES
from ckpttool.transforms.casting import FLOATS, INTEGERS, Casts, Loss, check_cast
from ckpttool.transforms.changes import dtypes_of

# NumPy's would reach the user's terminal.
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

FLOAT8 = sorted(name for name in FLOATS if name.startswith("float8"))
WIDE = ["float16", "bfloat16", "float32", "float64"]


def cast_of(array: np.ndarray, dtype: str, tmp_path) -> tuple[np.ndarray, Loss]:
    """The array cast on its way through a bundle, and what was lost."""
    casts = Casts()
    checkpoint = ckpttool.cast(bundle({"v": array}).open(tmp_path), {array.dtype.name: dtype}, casts)
    assert checkpoint["v"].dtype == DTYPES[dtype]
    return checkpoint["v"].numpy(), casts.losses["v"]


def assert_same(a: np.ndarray, b: np.ndarray) -> None:
    """The same bits, but for the payload of what is not a number."""
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    unsigned = np.dtype(f"u{a.dtype.itemsize // (2 if a.dtype.kind == 'c' else 1)}")
    parts = np.dtype(f"f{a.dtype.itemsize // 2}") if a.dtype.kind == "c" else a.dtype
    a, b = a.reshape(-1).view(parts), b.reshape(-1).view(parts)
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    numbers = ~np.isnan(a)
    np.testing.assert_array_equal(a.view(unsigned)[numbers], b.view(unsigned)[numbers])


def samples(dtype: str) -> np.ndarray:
    """Numbers of a float type: all of 16 bits or less; else special ones, those around the ends and the ties of the
    narrower types, and some of every size.
    """
    numpy = DTYPES[dtype].numpy
    if numpy.itemsize <= 2:
        return np.arange(1 << 8 * numpy.itemsize).astype(f"u{numpy.itemsize}").view(numpy)
    unsigned = np.dtype(f"u{numpy.itemsize}")
    finfo = np.finfo(numpy)
    special = [0, math.inf, math.nan, finfo.max, finfo.tiny, finfo.smallest_subnormal]
    ends = []
    for name in (*FLOAT8, "float16", "bfloat16", "float32"):
        narrow = ml_dtypes.finfo(DTYPES[name].numpy)
        largest, smallest, eps = (float(x) for x in (narrow.max, narrow.smallest_subnormal, narrow.eps))
        ends += [largest, largest * (1 + eps / 4), largest * (1 + eps / 2), smallest, smallest / 2, smallest * 1.5]
        ends += [1 + eps / 2, 1 + eps * 1.5, 1 + eps * 2.5]
    with np.errstate(all="ignore"):
        near = np.array([*special, *ends], numpy)
        near = np.concatenate([near, np.nextafter(near, numpy.type(0)), np.nextafter(near, numpy.type(math.inf))])
    some = np.random.default_rng(1).integers(0, 1 << 8 * numpy.itemsize, 4000, unsigned, endpoint=False)
    quiet = [~unsigned.type(0), (near[2:3].view(unsigned) ^ unsigned.type(1))[0]]  # More that are not numbers.
    return np.concatenate([near, -near, some.view(numpy), np.array(quiet, unsigned).view(numpy)])


def random_floats(dtype: str, scale: float = 1) -> np.ndarray:
    return (np.random.default_rng(2).standard_normal(3000) * scale).astype(DTYPES[dtype].numpy)


def normal(array: np.ndarray) -> np.ndarray:
    """The numbers that float32 does not hold as denormals: TensorFlow's kernels make zeros of those."""
    with np.errstate(all="ignore"):
        size = np.abs(array.astype(np.float64))
        return array[~(size < np.finfo(np.float32).tiny) | (size == 0)]


@pytest.mark.tensorflow
@pytest.mark.parametrize(("old", "new"), list(itertools.permutations(WIDE, 2)))
def test_floats_are_tensorflows(tf, tmp_path, old, new):
    """Every number becomes what tf.cast makes of it, bit for bit: ties, denormals, infinities, NaN, overflow."""
    array = normal(samples(old))
    if (old, new) == ("float64", "float16"):  # TensorFlow rounds twice here, by way of float32: NumPy does not.
        with np.errstate(all="ignore"):
            array = array[(array.astype(np.float32) == array) | np.isnan(array)]
    made, _ = cast_of(array, new, tmp_path)
    assert_same(made, tf.cast(array, new).numpy())


@pytest.mark.parametrize("new", ["float16", "float32"])
def test_floats_are_the_machines(tmp_path, new):
    """What C makes of a double, denormals too, is what a float64 becomes."""
    array = samples("float64")
    array = array[np.isfinite(array)]
    made, _ = cast_of(array, new, tmp_path)
    code = {"float16": "e", "float32": "f"}[new]
    for old, value in zip(array.tolist(), made, strict=True):
        try:
            assert struct.pack(code, old) == struct.pack(code, value)
        except OverflowError:
            assert value == math.copysign(math.inf, old)


def test_bfloat16_is_half_of_float32(tmp_path):
    """A bfloat16 is the upper half of a float32, rounded as integers are, denormals too."""
    array = samples("float32")
    array = array[~np.isnan(array)]
    bits = array.view(np.uint32).astype(np.uint64)
    expected = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    np.testing.assert_array_equal(cast_of(array, "bfloat16", tmp_path)[0].view(np.uint16), expected)


@pytest.mark.tensorflow
@pytest.mark.parametrize("new", ["float8_e5m2", "float8_e4m3fn"])
@pytest.mark.parametrize("old", WIDE)
def test_eight_bits_are_tensorflows(tf, tmp_path, old, new):
    """The types of 8 bits that tf.cast knows are as it makes them."""
    array = normal(samples(old))
    assert_same(cast_of(array, new, tmp_path)[0], tf.cast(array, getattr(tf.dtypes.experimental, new)).numpy())


@pytest.mark.parametrize("new", FLOAT8)
def test_eight_bits_are_the_nearest(tmp_path, new):
    """Of every float16, the nearest of all 256 numbers is taken, of two the even one; beyond the largest, none is."""
    numpy = DTYPES[new].numpy
    all_of = np.arange(256, dtype=np.uint8).view(numpy)
    positive = [(float(value), code) for code, value in enumerate(all_of[:128]) if np.isfinite(value)]
    largest, step = positive[-1][0], positive[-1][0] - positive[-2][0]
    array = samples("float16")
    array = array[np.isfinite(array)][::7]
    made, _ = cast_of(array, new, tmp_path)
    for old, value in zip(array.astype(float), made, strict=True):
        if abs(old) >= largest + step / 2:  # (Half-way, the even one is what would come next.)
            assert not np.isfinite(value), old
            continue
        nearest = min(positive, key=lambda pair: (abs(abs(old) - pair[0]), pair[1] & 1))[0]
        assert abs(float(value)) == nearest, old
        assert nearest == 0 or math.copysign(1, float(value)) == math.copysign(1, old)


@pytest.mark.parametrize("new", FLOAT8)
@pytest.mark.parametrize("old", FLOAT8)
def test_eight_bits_to_eight_bits_are_ml_dtypes(tmp_path, old, new):
    """From one type of 8 bits to another, all 256 numbers become what ml_dtypes makes of them."""
    array = samples(old)
    if old == new:
        check_cast(old, new)
        return
    assert_same(cast_of(array, new, tmp_path)[0], array.astype(DTYPES[new].numpy))


@pytest.mark.tensorflow
def test_complex_numbers_are_tensorflows(tf, tmp_path):
    """Both parts of a complex number are cast as floats are."""
    parts = normal(samples("float64"))
    array = np.empty(len(parts), np.complex128)
    array.real, array.imag = parts, parts[::-1]
    made, _ = cast_of(array, "complex64", tmp_path)
    assert_same(made, tf.cast(array, tf.complex64).numpy())
    assert_same(cast_of(made, "complex128", tmp_path)[0], tf.cast(made, tf.complex128).numpy())


def integers(dtype: str, limits: str) -> np.ndarray:
    """Integers of a type that another one holds, the ends of both and some between."""
    both = np.iinfo(dtype), np.iinfo(limits)
    low, high = max(i.min for i in both), min(i.max for i in both)
    powers = [sign * (2**n + d) for n in range(64) for d in (-1, 0, 1, 2**n >> 9, (2**n >> 9) + 1) for sign in (1, -1)]
    return np.array([low, high, *(n for n in powers if low <= n <= high)], dtype)


@pytest.mark.tensorflow
@pytest.mark.parametrize(("old", "new"), [p for p in itertools.product(sorted(INTEGERS), repeat=2) if p[0] != p[1]])
def test_integers_are_tensorflows(tf, tmp_path, old, new):
    """An integer that fits is the same number, as tf.cast makes it, and nothing is lost."""
    array = integers(old, new)
    made, loss = cast_of(array, new, tmp_path)
    assert_same(made, tf.cast(array, new).numpy())
    assert [int(n) for n in made] == [int(n) for n in array]
    assert loss == Loss(array.size)


@pytest.mark.tensorflow
@pytest.mark.parametrize("new", WIDE)
@pytest.mark.parametrize("old", sorted(INTEGERS))
def test_integers_to_floats_are_tensorflows(tf, tmp_path, old, new):
    """An integer becomes the float that tf.cast makes of it."""
    array = integers(old, old)
    if new == "float16":  # By way of float32 in TensorFlow.
        array = array[array.astype(np.float32).astype(object) == array.astype(object)]
    assert_same(cast_of(array, new, tmp_path)[0], tf.cast(array, new).numpy())


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("int64", "int32", 2**31),
        ("int64", "int32", -(2**31) - 1),
        ("int32", "uint8", -1),
        ("int16", "int8", 128),
        ("uint64", "int64", 2**63),
        ("int64", "uint64", -(2**63)),
    ],
)
def test_integers_that_do_not_fit(tmp_path, old, new, value):
    """An integer that does not fit is an error with it, its variable and the type, whichever block it is in."""
    array = np.array([1, 2, value, 3], old)
    checkpoint = ckpttool.cast(bundle({"step": array}).open(tmp_path), {old: new})
    with pytest.raises(ConversionError, match=f"{value} does not fit into {new} · variable 'step'"):
        checkpoint["step"].numpy()
    with pytest.raises(ConversionError, match="does not fit"):
        list(checkpoint["step"].blocks(8))
    with pytest.raises(ConversionError, match="does not fit"):
        ckpttool.write_bundle(checkpoint, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_an_empty_array_of_integers_fits(tmp_path):
    """Of no integers none is too large."""
    checkpoint = ckpttool.cast(bundle({"v": np.zeros((0, 3), np.int64)}).open(tmp_path), {"int64": "int8"})
    assert checkpoint["v"].numpy().dtype == np.int8
    ckpttool.write_bundle(checkpoint, tmp_path / "out")
    assert ckpttool.open_checkpoint(tmp_path / "out")["v"].shape == (0, 3)


# What is lost


def exact(value: object) -> Fraction | float:
    """A number as it is, of any type."""
    if isinstance(value, np.integer):
        return Fraction(int(value))
    number = float(value)
    return Fraction(number) if math.isfinite(number) else number


def counted(old: np.ndarray, new: np.ndarray) -> Loss:
    """What is lost, counted one by one."""
    kinds = {"rounded": 0, "overflowed": 0, "underflowed": 0}
    for before, after in zip(map(exact, old.ravel()), map(exact, new.ravel()), strict=True):
        if before != before or before == after:
            continue
        if after != after or abs(after) == math.inf:
            kinds["overflowed"] += 1
        else:
            kinds["rounded" if after else "underflowed"] += 1
    return Loss(old.size, **kinds)


PAIRS = [pair for pair in itertools.product([*WIDE, *FLOAT8], repeat=2) if pair[0] != pair[1]]
PAIRS += list(itertools.product(("int8", "int64", "uint64", "int32"), [*WIDE, *FLOAT8]))


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_losses_are_counted(tmp_path, old, new):
    """What is rounded, overflows or underflows is counted as exact arithmetic counts it; NaN and ±inf are no loss,
    but where a type has no infinities.
    """
    array = integers(old, old) if old in INTEGERS else samples(old)
    array = array[:: max(1, len(array) // 500)]
    made, loss = cast_of(array, new, tmp_path)
    assert loss == counted(array, made)


def test_losses_are_counted_by_blocks(tmp_path):
    """The counts of a variable are those of all its blocks, whatever their size, and those of the last reading."""
    array = samples("float32")
    whole, casts = cast_of(array, "float16", tmp_path)[1], Casts()
    variable = ckpttool.cast(bundle({"v": array}).open(tmp_path), {"float32": "float16"}, casts)["v"]
    assert casts.losses == {}
    for nbytes in (2, 14, 1000, 1 << 20):
        casts.losses.clear()
        assert sum(block.size for _, block in variable.blocks(nbytes)) == array.size
        assert casts.losses == {"v": whole}
    assert whole.overflowed
    assert whole.underflowed
    assert whole.rounded


def test_a_cast_that_keeps_everything_loses_nothing(tmp_path):
    """To a wider type nothing is lost, of NaN and infinities neither."""
    for old, new in [
        ("float16", "float32"),
        ("bfloat16", "float32"),
        ("float32", "float64"),
        ("float8_e5m2", "float16"),
    ]:
        assert cast_of(samples(old), new, tmp_path)[1] == Loss(samples(old).size)


# Which variables


def test_only_what_is_asked_for_is_cast(tmp_path):
    """A name of a dtype casts every float; integers, strings and truth values are left as they are, bytes included."""
    arrays = {"h": np.float16(1), "f": np.float32(1), "d": np.float64(1), "i": np.int64(1), "b": np.bool_(True)}
    checkpoint = bundle({**arrays, "s": strings(b"x"), "c": np.complex64(1)}).open(tmp_path)
    cast = ckpttool.cast(checkpoint, "bfloat16")
    kinds = {name: variable.dtype.name for name, variable in cast.items()}
    assert kinds == dict.fromkeys("hfd", "bfloat16") | {"i": "int64", "b": "bool", "s": "string", "c": "complex64"}
    assert all(cast[name] is checkpoint[name] for name in "ibsc")


def test_what_has_the_dtype_is_left_alone(tmp_path):
    """A variable that already has the dtype is copied, not computed."""
    checkpoint = bundle({"f": np.float32(1)}).open(tmp_path)
    assert ckpttool.cast(checkpoint, "float32")["f"] is checkpoint["f"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *(("float32", "int32"), ("int32", "bool"), ("bool", "float32"), ("string", "float32"), ("float32", "string")),
        *(("complex64", "float32"), ("float32", "complex64"), ("int32", "qint32"), ("half", "float32")),
        *(("float32", "double"), ("int64", "complex64"), ("int32", "resource")),
    ],
)
def test_casts_that_are_refused(tmp_path, old, new):
    """What would change the meaning of the numbers, or is no dtype, is refused before anything is read."""
    with pytest.raises(ValueError, match="is no dtype" if {old, new} & {"half", "double"} else "no cast from"):
        ckpttool.cast(bundle({"v": np.float32(1)}).open(tmp_path), {old: new})


def test_a_map_goes_before_a_cast_of_all():
    """What the map says of a dtype holds, whatever all floats are cast to."""
    assert dtypes_of("float16", {"float64": "float32", "int64": "int32"}) == {
        **dict.fromkeys(FLOATS - {"float16"}, "float16"),
        "float64": "float32",
        "int64": "int32",
    }
    assert dtypes_of(None, {}) == {}


# Blocks, slices and shards

SHAPE = (6, 4, 5)
SLICES = {
    "whole": None,
    "rows": [((0, 1), (0, -1), (0, -1)), ((1, 5), (0, -1), (0, -1))],
    "columns": [((0, -1), (0, 3), (0, -1)), ((0, -1), (3, 1), (0, -1))],
    "quarters": [((r, 3), (c, 2), (0, -1)) for r in (0, 3) for c in (0, 2)],
}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("extents", SLICES.values(), ids=SLICES)
def test_blocks_make_no_difference(tmp_path, extents, shards):
    """A variable in one piece or in slices, in one file or in several, is cast alike in blocks of any size."""
    array = random_floats("float32", 1e5)[:120].reshape(SHAPE)
    made = bundle({"v": array, "w": array[0]}, slices={"v": extents} if extents else None, shards=shards)
    checkpoint = ckpttool.cast(made.open(tmp_path), "float16")
    with np.errstate(all="ignore"):
        expected = array.astype(np.float16)
    for nbytes in (1, 2, 6, 10, 11, 38, 40, 100, 1 << 23):
        found = np.zeros(SHAPE, np.float16)
        for box, block in checkpoint["v"].blocks(nbytes):
            assert block.nbytes <= max(nbytes, 2)
            found[box] = block
        assert_same(found, expected)


def written(checkpoint: Checkpoint, tmp_path, **options: int) -> Checkpoint:
    ckpttool.write_bundle(checkpoint, tmp_path / "out", **options)
    return ckpttool.open_checkpoint(tmp_path / "out")


def test_slices_become_one_piece(tmp_path):
    """A partitioned variable that is cast is stored in one piece, where its first slice was."""
    array = random_floats("float32")[:24].reshape(6, 4)
    extents = [((0, 2), (0, -1)), ((2, 4), (0, -1))]
    made = bundle({"a": np.float32(1), "p": array, "z": np.float32(2)}, slices={"p": extents}, shards=2)
    cast = written(ckpttool.cast(made.open(tmp_path), "float64"), tmp_path)
    assert [len(cast[name].slices) for name in "apz"] == [1, 1, 1]
    np.testing.assert_array_equal(cast["p"].numpy(), array.astype(np.float64))


@pytest.mark.tensorflow
def test_tensorflow_reads_what_was_cast(tf, tmp_path):
    """TensorFlow reads the cast variables of a bundle, with their new dtypes, from as many shards as are asked for."""
    arrays = {f"v{n}": random_floats("float32", 10.0**n) for n in range(-8, 9, 4)}
    written(ckpttool.cast(bundle(arrays, shards=2).open(tmp_path), "bfloat16"), tmp_path, num_shards=3)
    reader = tf.train.load_checkpoint(str(tmp_path / "out"))
    assert len(list(tmp_path.glob("out.data-*-of-00003"))) == 3
    for name, array in arrays.items():
        assert reader.get_variable_to_dtype_map()[name] == tf.bfloat16
        assert_same(reader.get_tensor(name), tf.cast(array, tf.bfloat16).numpy())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "float8_e5m2", "float8_e4m3b11fnuz"])
@pytest.mark.parametrize("target", ["hdf5", "npz", "npy", "safetensors", "tensor_slices"])
def test_every_format_takes_what_was_cast(tmp_path, target, dtype):
    """Each writer writes the cast numbers, and its reader gives them back: or it says that it can't hold the type."""
    array = random_floats("float32", 30).reshape(30, 100)
    cast = ckpttool.cast(bundle({"a/v": array, "a/n": np.arange(2)}).open(tmp_path), dtype)
    left_out = getattr(ckpttool, f"write_{target}")(cast, tmp_path / f"out.{target}")
    if any(planned.problem for planned in left_out):
        assert target == "tensor_slices"
        return
    read = ckpttool.open_checkpoint(tmp_path / f"out.{target}")
    assert read["a/v"].dtype.name == dtype
    assert_same(read["a/v"].numpy(), cast["a/v"].numpy())


def test_damage_is_found_while_casting(tmp_path):
    """A damaged source is an error of the variable, and no file is left, however late it is found."""
    array = np.arange(1000, dtype=np.float32)
    made = bundle({"a": array, "z": array})
    made.shards[0] = made.shards[0][:-1] + b"\xff"
    checkpoint = ckpttool.cast(made.open(tmp_path), "float16")
    before = set(tmp_path.iterdir())
    for target in ("bundle", "hdf5", "npz", "npy", "safetensors", "tensor_slices"):
        with pytest.raises(ckpttool.CorruptionError, match="'z'"):
            getattr(ckpttool, f"write_{target}")(checkpoint, tmp_path / "out")
        assert set(tmp_path.iterdir()) == before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="how malloc keeps memory is glibc's")
def test_memory_is_kept_from_block_to_block(tmp_path):
    """Blocks come and go, and the system clears no page again for each of them: 22,000 times for 16 variables."""
    ckpttool.write_bundle(
        ckpttool.from_arrays({f"w{i}": np.ones(1 << 20, np.float32) for i in range(16)}), tmp_path / "m"
    )
    script = """
import resource, sys, ckpttool
first, *others = ckpttool.cast(ckpttool.open_checkpoint(sys.argv[1]), "bfloat16").values()
list(map(len, first.blocks()))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for variable in others:
    list(map(len, variable.blocks()))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "m"], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1_000
