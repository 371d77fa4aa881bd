"""The mean of checkpoints: NumPy's in float64, rounded once, whatever the blocks."""

import itertools
import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from bundles import bundle, strings
from conftest import FIXTURES

import ckpttool
from ckpttool.errors import ConversionError
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.dtypes import DTYPES
from ckpttool.transforms import averaging
from ckpttool.transforms.casting import COMPLEX, FLOATS, nearest

SHAPE = (6, 4, 5)

# NumPy's would reach the user's terminal.
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def opened(tmp_path, name: str, arrays: dict[str, np.ndarray], **options: object) -> Checkpoint:
    directory = tmp_path / name
    directory.mkdir()
    return bundle(arrays, **options).open(directory)


def several(tmp_path, *values: np.ndarray, name: str = "v") -> list[Checkpoint]:
    return [opened(tmp_path, f"{number}", {name: np.asarray(value)}) for number, value in enumerate(values)]


def randoms(dtype: str, count: int, shape: tuple[int, ...] = SHAPE) -> list[np.ndarray]:
    """Arrays of a dtype, of numbers of several sizes."""
    random = np.random.default_rng(3)
    numpy = DTYPES[dtype].numpy
    made = [random.standard_normal(shape) * 2.0 ** random.integers(-5, 4, shape) for _ in range(count)]
    if numpy.kind == "c":
        made = [array + 1j * np.flip(array) for array in made]
    return [array.astype(numpy) for array in made]


def mean_in_float64(arrays: list[np.ndarray], weights: list[float] | None = None) -> np.ndarray:
    """NumPy's mean in float64 (complex128), not yet rounded to their dtype."""
    wide = np.complex128 if arrays[0].dtype.kind == "c" else np.float64
    stacked = np.stack([array.astype(wide) for array in arrays])
    return np.mean(stacked, axis=0) if weights is None else np.average(stacked, axis=0, weights=weights)


def rounded(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Float64 numbers rounded once, by exact arithmetic: the nearest of ml_dtypes' cast and its neighbors."""
    made = values.astype(dtype)
    if dtype.itemsize > 2 or dtype == np.float16:
        return made
    bits = made.view(f"u{dtype.itemsize}")
    neighbors = np.stack([(bits.astype(int) + step).astype(bits.dtype).view(dtype) for step in (0, 1, -1)])
    for index, value in np.ndenumerate(values):
        near = [n for n in neighbors[:, *index] if np.isfinite(n)]
        if near and np.isfinite(made[index]):
            made[index] = min(
                near, key=lambda n: (abs(Fraction(float(n)) - Fraction(value)), int(n.view(bits.dtype)) & 1)
            )
    return made


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("dtype", sorted(FLOATS | COMPLEX))
def test_the_mean_is_numpys_in_float64(tmp_path, dtype, count):
    """Of any float type, the mean is NumPy's in float64, rounded once."""
    arrays = randoms(dtype, count)
    mean = ckpttool.average(several(tmp_path, *arrays))["v"]
    assert mean.dtype.name == dtype
    expected = rounded(mean_in_float64(arrays), arrays[0].dtype)
    assert mean.numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("weights", [[1, 1, 1], [2, 1, 0], [0.1, 0.2, 0.7], [1e-30, 3e-30, 5e-30], [0, 0, 5]])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"])
def test_weights(tmp_path, dtype, weights):
    """Weights count as they are to each other; they are divided by once, not made to sum to one before."""
    arrays = randoms(dtype, 3)
    mean = ckpttool.average(several(tmp_path, *arrays), weights)["v"].numpy()
    wide = np.complex128 if dtype in COMPLEX else np.float64
    total = sum(array.astype(wide) * weight for array, weight in zip(arrays, weights, strict=True)) / math.fsum(weights)
    assert mean.tobytes() == rounded(total, arrays[0].dtype).tobytes()
    error = np.abs(mean.astype(wide) - mean_in_float64(arrays, weights))
    assert np.all(error <= 2 * float(ml_dtypes.finfo(DTYPES[dtype].numpy).eps) * (np.abs(total) + 1e-7))


def test_the_sum_is_not_rounded(tmp_path):
    """What float16 could not sum (it would overflow, and lose small numbers) has its mean."""
    arrays = [np.float16([60000, 2048]), np.float16([60000, 1]), np.float16([60000, 1])]
    mean = ckpttool.average(several(tmp_path, *arrays))["v"].numpy()
    assert mean.tolist() == [60000, np.float16(2050 / 3)]


def test_numbers_are_rounded_once():
    """Just above half-way between two numbers of 16 or 8 bits, the upper one is taken; float32 would lose that."""
    for dtype in (ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3b11fnuz):
        eps = float(ml_dtypes.finfo(dtype).eps)
        values = np.array([1 + eps / 2 + 2**-40, 1 + eps / 2, 1 + eps / 2 - 2**-40, 1 + eps * 1.5 - 2**-40])
        for sign in (1, -1):
            made = nearest(sign * values, np.dtype(dtype)).astype(float) * sign
            assert made.tolist() == [1 + eps, 1, 1, 1 + eps]


def test_what_is_not_finite(tmp_path):
    """NaN, infinities and zeros are as NumPy's; too large a sum is infinite; a weight of 0 leaves a NaN out."""
    inf, nan = np.inf, np.nan
    a, b = np.float32([inf, inf, nan, 3e38, -0.0]), np.float32([1, -inf, 1, 3e38, -0.0])
    mean = ckpttool.average(several(tmp_path / "a", a, b))["v"].numpy()
    np.testing.assert_array_equal(mean, np.float32([inf, nan, nan, 3e38, 0]))
    assert not np.signbit(mean[-1])  # As in NumPy, whose sums begin with zero.
    assert ckpttool.average(several(tmp_path / "b", a, b), [0, 1])["v"].numpy().tolist() == [
        1,
        -inf,
        1,
        np.float32(3e38),
        0,
    ]
    huge = ckpttool.average(several(tmp_path / "c", np.float64(1.7e308), np.float64(1.7e308)))["v"].numpy()
    assert huge == inf


@pytest.fixture(autouse=True)
def directories(tmp_path):
    """For those that average more than once."""
    for name in "abc":
        (tmp_path / name).mkdir()


def test_all_else_is_the_last_ones(tmp_path):
    """Integers, truth values and strings are the last checkpoint's, byte for byte, of zero weight too."""
    kinds = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"]
    arrays = [
        {name: np.array([number, number + 1], name) for name in kinds}
        | {"s": strings(b"%d" % number), "f": np.float32(number)}
        for number in (1, 3, 2)
    ]
    checkpoints = [opened(tmp_path, str(number), each) for number, each in enumerate(arrays)]
    mean = ckpttool.average(checkpoints, [1, 1, 0])
    assert all(mean[name] is checkpoints[-1][name] for name in [*kinds, "s"])
    assert mean["f"].numpy() == 2
    ckpttool.write_bundle(mean, tmp_path / "out")
    assert ckpttool.open_checkpoint(tmp_path / "out")["s"].strings() == [b"2"]


def test_the_mean_of_one_is_itself(tmp_path):
    """A single checkpoint's mean has its bytes."""
    made = bundle({"a": np.float32([1, np.pi]), "p": np.arange(6, dtype=np.float64), "s": strings(b"x")})
    checkpoint = made.open(tmp_path)
    ckpttool.write_bundle(ckpttool.average([checkpoint]), tmp_path / "out")
    assert (tmp_path / "out.data-00000-of-00001").read_bytes() == made.shards[0]
    assert (tmp_path / "out.index").read_bytes() == (tmp_path / "model.index").read_bytes()


# Blocks, slices and shards

SLICES = {
    "whole": None,
    "rows": [((0, 1), (0, -1), (0, -1)), ((1, 5), (0, -1), (0, -1))],
    "columns": [((0, -1), (0, 3), (0, -1)), ((0, -1), (3, 1), (0, -1))],
    "quarters": [((r, 3), (c, 2), (0, -1)) for r in (0, 3) for c in (0, 2)],
}


@pytest.mark.parametrize("cuts", list(itertools.combinations(SLICES, 2)), ids="-".join)
def test_blocks_make_no_difference(tmp_path, monkeypatch, cuts):
    """Checkpoints that are cut and sharded each in its own way have one mean, in blocks of any size on either side."""
    arrays = randoms("float32", 2)
    checkpoints = [
        opened(
            tmp_path,
            str(n),
            {"v": array, "w": array[0]},
            slices={"v": SLICES[cut]} if SLICES[cut] else None,
            shards=n + 1,
        )
        for n, (array, cut) in enumerate(zip(arrays, cuts, strict=True))
    ]
    expected = mean_in_float64(arrays).astype(np.float32)
    for inner, outer in itertools.product((1, 40, 1 << 23), (4, 28, 400, 1 << 23)):
        monkeypatch.setattr(averaging, "BLOCK_SIZE", inner)
        found = np.zeros(SHAPE, np.float32)
        for box, block in ckpttool.average(checkpoints)["v"].blocks(outer):
            found[box] = block
        assert found.tobytes() == expected.tobytes()


def test_memory_is_bounded_by_blocks(tmp_path, monkeypatch):
    """However large the variable, what is read of each checkpoint at once is a block's share."""
    monkeypatch.setattr(averaging, "BLOCK_SIZE", 400)
    array = np.arange(10_000, dtype=np.float32).reshape(100, 100)
    checkpoints, sizes = several(tmp_path, array, array, array, array), []
    mean_of = averaging._Mean._mean
    monkeypatch.setattr(
        averaging._Mean,
        "_mean",
        lambda self, arrays: sizes.append(sum(a.nbytes for a in arrays)) or mean_of(self, arrays),
    )
    np.testing.assert_array_equal(ckpttool.average(checkpoints)["v"].numpy(), array)
    assert max(sizes) <= 400


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (1, 1)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
def test_small_shapes(tmp_path, dtype, shape):
    """Scalars and arrays without elements have means of their shape."""
    arrays = randoms(dtype, 2, shape)
    mean = ckpttool.average(several(tmp_path, *arrays))
    np.testing.assert_array_equal(mean["v"].numpy(), mean_in_float64(arrays).astype(arrays[0].dtype))
    ckpttool.write_bundle(mean, tmp_path / "out")
    assert ckpttool.open_checkpoint(tmp_path / "out")["v"].shape == shape


@pytest.mark.tensorflow
def test_tensorflow_reads_the_mean(tf, tmp_path):
    """TensorFlow reads the mean of partitioned and sharded checkpoints: of one that is given thrice, its own values."""
    prefixes = [FIXTURES / "partitioned" / "model", FIXTURES / "sharded" / "model"]
    for prefix in prefixes:
        same = [ckpttool.open_checkpoint(prefix) for _ in range(3)]
        ckpttool.write_bundle(ckpttool.average(same, [3, 1, 2]), tmp_path / "out", force=True)
        made, reader = tf.train.load_checkpoint(str(tmp_path / "out")), tf.train.load_checkpoint(str(prefix))
        assert made.get_variable_to_shape_map() == reader.get_variable_to_shape_map()
        for name in reader.get_variable_to_shape_map():
            np.testing.assert_array_equal(made.get_tensor(name), reader.get_tensor(name))


# What is refused


def refused(tmp_path, a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> str:
    with pytest.raises(ConversionError) as caught:
        ckpttool.average([opened(tmp_path, "x", a), opened(tmp_path, "y", b)])
    return str(caught.value)


def test_other_names(tmp_path):
    """Variables that are in one checkpoint only are named, with both checkpoints."""
    w = np.float32(0)
    message = refused(tmp_path, {"w": w, "a": w, "b": w}, {"w": w, "c": w})
    assert message.startswith(f"in {tmp_path}/x/model, and not in {tmp_path}/y/model: 'a', 'b' · ")
    message = refused(tmp_path / "a", {"w": w}, {"w": w, "c": w})
    assert message.startswith(f"in {tmp_path}/a/y/model, and not in {tmp_path}/a/x/model: 'c' · ")


def test_other_shapes_and_dtypes(tmp_path):
    """Variables of another shape or dtype are named, with both; a vector of one is no scalar; integers count too."""
    a = {
        "v": np.zeros((2, 3), np.float32),
        "d": np.float32(0),
        "i": np.int64(0),
        "one": np.float32([0]),
        "ok": np.int8(0),
    }
    b = {
        "v": np.zeros((3, 2), np.float32),
        "d": np.float64(0),
        "i": np.int32(0),
        "one": np.float32(0),
        "ok": np.int8(1),
    }
    message = refused(tmp_path, a, b)
    for part in (
        *("'v' (float32[2,3], float32[3,2])", "'d' (float32[], float64[])"),
        *("'i' (int64[], int32[])", "'one' (float32[1], float32[])"),
    ):
        assert part in message
    assert "'ok'" not in message


def test_many_are_counted(tmp_path):
    """Of many differences some are named, and the rest counted."""
    message = refused(tmp_path, {f"v{n:02}": np.float32(0) for n in range(20)}, {"w": np.float32(0)})
    assert "'v00', 'v01', 'v02', 'v03', 'v04' and 15 more" in message


def test_any_checkpoint_is_compared(tmp_path):
    """The difference may be in any of them."""
    checkpoints = several(tmp_path, np.float32(0), np.float32([0]), np.float32(0))
    with pytest.raises(ConversionError, match=r"not of the same dtype and shape in .*/1/model and in .*/2/model: 'v'"):
        ckpttool.average(checkpoints)


@pytest.mark.parametrize(
    "weights", [[], [1], [1, 1, 1], [0, 0], [1, -1], [1, float("nan")], [1, float("inf")], [1e308, 1e308]]
)
def test_no_weights(tmp_path, weights):
    """Weights must be as many as checkpoints, finite, not negative, and not all zero."""
    with pytest.raises(ValueError, match="weights"):
        ckpttool.average(several(tmp_path, np.float32(0), np.float32(1)), weights)


def test_no_checkpoints():
    """Of nothing there is no mean."""
    with pytest.raises(ValueError, match="no checkpoints: there is no mean of none"):
        ckpttool.average([])


@pytest.mark.parametrize("which", [0, 1, 2])
def test_damage_in_any_of_them(tmp_path, which):
    """A damaged value in any of the checkpoints is an error of the variable, and no file is left."""
    checkpoints = []
    for number in range(3):
        made = bundle({"a": np.arange(300, dtype=np.float32), "z": np.arange(300, dtype=np.float32)})
        if number == which:
            made.shards[0] = made.shards[0][:-1] + b"\xff"
        (tmp_path / str(number)).mkdir()
        checkpoints.append(made.open(tmp_path / str(number)))
    mean, before = ckpttool.average(checkpoints), set(tmp_path.iterdir())
    for target in ("bundle", "hdf5", "npz", "npy", "safetensors", "tensor_slices"):
        with pytest.raises(ckpttool.CorruptionError, match="'z'"):
            getattr(ckpttool, f"write_{target}")(mean, tmp_path / "out")
        assert set(tmp_path.iterdir()) == before
