"""`ckpttool stats`: NumPy, in float64, is the judge; memory and results don't depend on how values are stored."""

import json
import math
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from bundles import bundle, examples, strings
from conftest import FIXTURES
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ckpttool
from ckpttool.analysis.values import statistics as module
from ckpttool.analysis.values.statistics import HISTOGRAM_BINS, QUANTILES, Statistics, statistics_of
from ckpttool.errors import CorruptionError
from ckpttool.formats.tensor_slices.writing import write_tensor_slices

pytestmark = pytest.mark.usefixtures("passes")

RELATIVE = 1e-12
ROUNDING = 1e-15
QUANTILE = 1 / 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the examples of Hypothesis are written."""
    return tmp_path_factory.mktemp("statistics")


def statistics(array: np.ndarray, folder: Path, **options) -> Statistics:
    return statistics_of(bundle({"w": array}, **options).open(folder)["w"])


def real(array: np.ndarray) -> np.ndarray:
    """What is reckoned with: of complex numbers the magnitudes; all others as they are, in types that NumPy has."""
    if array.dtype.kind == "c":
        return np.abs(array.astype(np.complex128)).ravel()
    if array.dtype.isbuiltin != 1:
        return array.astype(np.float64).ravel()
    return array.astype(np.uint8).ravel() if array.dtype == bool else array.ravel()


def assert_are_of(found: Statistics, array: np.ndarray) -> None:
    """Asserts that the statistics are those that NumPy finds."""
    values = real(array)
    finite = values[np.isfinite(values)]
    counts = (values.size, np.isnan(values).sum(), np.isinf(values).sum(), (values == 0).sum())
    assert found[:4] == counts
    if not finite.size:
        assert all(map(math.isnan, found[4:8] + found.quantiles))
        assert found.histogram == ()
        return
    assert (found.minimum, found.maximum) == (finite.min().item(), finite.max().item())
    assert isinstance(found.minimum, int) == ("int" in array.dtype.name or array.dtype == bool)
    wide = finite.astype(np.float64)
    with np.errstate(over="ignore"):
        # What is near zero beside the values may be nothing but their last digits.
        last = float(np.abs(wide).max()) * ROUNDING
        assert found.mean == pytest.approx(float((wide / wide.size).sum()), rel=RELATIVE, abs=last)
        largest = float(np.abs(wide).max()) or 1.0  # By which squares can be held.
        assert found.deviation == pytest.approx(float((wide / largest).std()) * largest, rel=RELATIVE, abs=last)
    tiny = np.finfo(finite.dtype if finite.dtype == np.float64 else np.float32).tiny
    for place, quantile in enumerate(found.quantiles):
        exact = float(np.quantile(finite, QUANTILES[place], method="inverted_cdf"))
        assert abs(quantile - exact) <= QUANTILE * max(abs(exact), float(tiny))
    assert len(found.histogram) == (0 if finite.min() == finite.max() else HISTOGRAM_BINS)
    assert sum(found.histogram) in (0, finite.size)


@pytest.mark.parametrize("prefix", sorted(FIXTURES.rglob("*.index")), ids=lambda path: "/".join(path.parts[-2:]))
def test_fixtures(prefix):
    """Every number of every fixture: every dtype, scalars, empty ones, slices, shards."""
    for variable in ckpttool.open_checkpoint(prefix).values():
        found = statistics_of(variable)
        if variable.dtype.itemsize is None:
            assert found == Statistics(variable.size)
        else:
            assert_are_of(found, variable.numpy())


SPECIAL = {
    "nothing": np.zeros((3, 0, 2), np.float32),
    "scalar": np.array(2.5),
    "all NaN": np.full(9, np.nan, np.float32),
    "all infinite": np.array([np.inf, -np.inf]),
    "NaN and one number": np.array([np.nan, 3, np.nan], np.float32),
    "negative zero": np.array([-0.0, 0.0, 1.0], np.float32),
    "denormal": np.array([1e-45, 2e-45, 1e-40, 0, -1e-44], np.float32),
    "denormal float64": np.array([5e-324, 1e-310, 0, -1e-320]),
    "beyond float32": np.array([1e300, -1e300, 1e-300, 3e200, 3.0]),
    "largest": np.array([np.finfo(np.float64).max, -np.finfo(np.float64).max, np.finfo(np.float64).max]),
    "largest float32": np.array([3.4028235e38, -3.4028235e38, 1], np.float32),
    "near 2^63": np.array([2**63 - 1, 2**63 - 2, -(2**63), 0, 2**53 + 1]),
    "near 2^64": np.array([2**64 - 1, 2**64 - 2, 0, 2**63 + 1], np.uint64),
    "far from zero": np.float64(1e9) + np.arange(1000) / 1000,
    "bool": np.array([True, False, True]),
    "complex": np.array([3 + 4j, 0, 1e-3j, complex(np.nan, 1), complex(np.inf, np.nan)], np.complex64),
    "complex128": np.array([3e200 + 4e200j, -1j]),
    "float16": np.array([65504, 6e-8, -1, np.inf, np.nan], np.float16),
    "bfloat16": np.array([3e38, -1e-40, 1, np.nan]).astype(ml_dtypes.bfloat16),
    "int4": np.array([-8, 7, 0, 1]).astype(ml_dtypes.int4),
    "uint4": np.array([15, 0, 8]).astype(ml_dtypes.uint4),
    "float8": np.array([-448, 0.5, np.nan]).astype(ml_dtypes.float8_e4m3fn),
}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("big_endian", [False, True], ids=["little-endian", "big-endian"])
def test_special_values(name, big_endian, tmp_path):
    """What overflows, underflows, cancels out or is not there is counted as NumPy counts it, in either byte order."""
    assert_are_of(statistics(SPECIAL[name], tmp_path, big_endian=big_endian), SPECIAL[name])


DTYPES = [
    np.dtype(name) for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8", "c16")
]
ARRAYS = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(max_dims=3, max_side=9)))


@examples
@given(array=ARRAYS, elements=st.integers(1, 40))
def test_any_array(array, elements, folder):
    """Whatever the values, dtype, shape and block size, the statistics are NumPy's."""
    before, module._ELEMENTS = module._ELEMENTS, elements
    try:
        assert_are_of(statistics(array, folder), array)
    finally:
        module._ELEMENTS = before


@pytest.mark.parametrize("elements", [1, 2, 3])
def test_blocks_as_far_apart_as_float64_goes(elements, folder, monkeypatch):
    """The mean is a number, and the same whatever the blocks are, where theirs differ by more than any float64."""
    monkeypatch.setattr(module, "_ELEMENTS", elements)
    largest = np.finfo(np.float64).max
    found = statistics(np.array([largest, -largest, largest / 2]), folder)
    assert found.mean == pytest.approx(largest / 6)
    assert found.deviation == pytest.approx(largest * 0.8498, rel=1e-3)


def weights(size: int = 10_000) -> np.ndarray:
    random = np.random.default_rng(6)
    values = random.standard_normal(size).astype(np.float32)
    values[random.integers(0, size, size // 10)] = 0
    values[random.integers(0, size, size // 100)] = np.nan
    return values.reshape(100, -1)


def assert_equal(found: Statistics, wanted: Statistics) -> None:
    """All counts are equal, and what is summed up is but for rounding."""
    assert found._replace(mean=0, deviation=0) == wanted._replace(mean=0, deviation=0)
    assert (found.mean, found.deviation) == pytest.approx((wanted.mean, wanted.deviation), rel=RELATIVE)


@pytest.mark.parametrize("elements", [1, 7, 1000, 4096, 9999])
def test_blocks_do_not_matter(elements, tmp_path, monkeypatch):
    """The size of the blocks that values are read in changes nothing."""
    wanted = statistics(weights(), tmp_path)
    monkeypatch.setattr(module, "_ELEMENTS", elements)
    assert_equal(statistics(weights(), tmp_path), wanted)


def test_sources_do_not_matter(tmp_path):
    """The same values have the same statistics from every format, byte order, in slices and among shards."""
    wanted = statistics(weights(), tmp_path)
    slices = {"w": [((0, 30), (0, -1)), ((30, 70), (0, 50)), ((30, 70), (50, 50))]}
    bundle({"w": weights()}, slices=slices, shards=2).write(tmp_path, "sliced")
    bundle({"w": weights()}, big_endian=True).write(tmp_path, "big-endian")
    source = bundle({"w": weights()}).open(tmp_path)
    writers = {
        "w.h5": ckpttool.write_hdf5,
        "w.safetensors": ckpttool.write_safetensors,
        "w.npz": ckpttool.write_npz,
        "npy": ckpttool.write_npy,
        "v1": write_tensor_slices,
    }
    for name, write in writers.items():
        write(source, tmp_path / name)
    np.savez_compressed(tmp_path / "compressed.npz", w=weights())
    for name in (*writers, "compressed.npz", "sliced", "big-endian"):
        assert_equal(statistics_of(ckpttool.open_checkpoint(tmp_path / name)["w"]), wanted)


def of_every_maker(array: np.ndarray, folder: Path) -> dict[str, ckpttool.Variable]:
    """The array as a variable of a V1 checkpoint, whose values NumPy is told to be little-endian; of a file of NumPy's
    that is big-endian; and from an array whose type has a byte order.
    """
    ordered = {order: array.astype(array.dtype.newbyteorder(order)) for order in "<>"}
    write_tensor_slices(ckpttool.from_arrays({"w": array}), folder / "v1")
    np.savez(folder / "big.npz", w=ordered[">"])
    opened = {name: ckpttool.open_checkpoint(folder / name) for name in ("v1", "big.npz")}
    opened |= {order: ckpttool.from_arrays({"w": ordered[order]}) for order in "<>"}
    return {name: checkpoint["w"] for name, checkpoint in opened.items()}


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "int64", "int32", "complex64", "complex128"])
def test_byte_orders_do_not_matter(name, tmp_path):
    """Numbers are reckoned with as they are, also where NumPy's type of them is not the plain one: not as float32."""
    array = (np.arange(3) * 2.0**40 + 1 if name == "int64" else np.arange(3) / 7 + 1).astype(name)
    for variable in of_every_maker(array, tmp_path).values():
        assert_are_of(statistics_of(variable), array)


def test_histogram(tmp_path):
    """Bins are of the same width from the smallest value to the largest; bfloat16s are in the bin that NumPy finds."""
    values = np.random.default_rng(6).standard_normal(5000).astype(ml_dtypes.bfloat16).astype(np.float32)
    counts, _ = np.histogram(values.astype(np.float64), HISTOGRAM_BINS)
    # A value on the border between bins may fall to either side, by its last digit.
    assert np.abs(np.array(statistics(values, tmp_path).histogram) - counts).sum() <= 2


def test_memory(tmp_path):
    """A variable of 64 MB is looked through in less than 16 MB."""
    source = bundle({"small": weights(), "w": np.ones(16 << 20, np.float32)}).open(tmp_path)
    statistics_of(source["small"])  # Imports.
    tracemalloc.start()
    try:
        assert statistics_of(source["w"]).mean == 1
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_command(run, tmp_path):
    """The table has a row for each variable that was asked for; what is not there is left empty, or null in JSON."""
    prefix = bundle({"a": np.array([1.0, 2.0, np.inf]), "b": strings(b"x"), "c/d": np.zeros(2)}).write(tmp_path)
    lines = run("stats", prefix, "--exclude", "c/*").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["name", "a", "b"]
    assert lines[1].split("\t")[:10] == ["a", "float64", "[3]", "1.0", "2.0", "1.5", "0.5", "0", "0", "1"]
    document = json.loads(run("stats", prefix, "--json").stdout)
    a, b, _ = document["statistics"]
    assert (a["min"], a["inf"], a["p50"], sum(a["histogram"])) == (1.0, 1, 1.0, 2)
    assert (b["min"], b["std"], b["histogram"]) == (None, None, [])


def test_deviations_whose_squares_float64_cant_hold(run, tmp_path):
    """They are as those of other numbers: of the largest, and of the smallest."""
    arrays = {"large": np.array([1e300, -1e300]), "small": np.array([1e-200, -1e-200, 0])}
    rows = json.loads(run("stats", bundle(arrays).write(tmp_path), "--json").stdout)["statistics"]
    assert [(row["mean"], row["std"]) for row in rows] == [
        (0.0, pytest.approx(1e300)),
        (pytest.approx(0, abs=1e-215), pytest.approx(1e-200 * math.sqrt(2 / 3))),
    ]


def test_magnitudes_that_their_own_type_cant_hold(tmp_path):
    """A complex number of finite parts is finite: of complex64 in float64, of complex128 as the largest number."""
    found = statistics(np.array([3e38 + 3e38j, 1 + 1j], np.complex64), tmp_path)
    assert (found.infinities, found.maximum) == (0, pytest.approx(3e38 * math.sqrt(2)))
    (tmp_path / "wide").mkdir()
    found = statistics(np.array([1.5e308 + 1.5e308j, complex(np.inf, 0)]), tmp_path / "wide")
    assert (found.infinities, found.maximum) == (1, np.finfo(np.float64).max)


def test_mean_of_the_largest(tmp_path):
    """A sum that float64 can't hold has a mean all the same."""
    largest = np.finfo(np.float64).max
    found = statistics(np.array([largest, largest, largest / 2]), tmp_path)
    assert found.mean == pytest.approx(largest / 6 * 5, rel=RELATIVE)
    assert found.deviation == pytest.approx(largest / math.sqrt(18), rel=RELATIVE)


def test_nothing_chosen(run, tmp_path):
    """No variable of that name is a no: exit code 1."""
    assert run("stats", bundle({"w": np.zeros(2)}).write(tmp_path), "--include", "x").exit_code == 1


def test_damage(run, tmp_path):
    """Damaged values have no statistics: the error names the variable, and the exit code is 4."""
    made = bundle({"sound": np.zeros(4), "w": np.ones(100)})
    made.change("w", crc32c=1)
    with pytest.raises(CorruptionError, match="Checksum"):
        statistics_of(made.open(tmp_path)["w"])
    result = run("stats", made.write(tmp_path))
    assert (result.exit_code, result.stdout) == (4, "")
    assert "'w'" in result.stderr


@pytest.mark.parametrize("format", ["tf", "h5", "safetensors"])
def test_more_dimensions_than_numpy_has(run, tmp_path, format):
    """TensorFlow has up to 254. All but `cat`, which shows them, do without: whole checkpoints were refused for one."""
    made = bundle({"empty": np.zeros(0, np.float32), "long": np.arange(6, dtype=np.float32), "w": np.ones(2)})
    made.change("long", shape=[1] * 100 + [2, 1, 3]).change("empty", shape=[1] * 100 + [0, 2])
    prefix, out = made.write(tmp_path), tmp_path / f"out.{format}"
    assert run("export", prefix, f"--{format}", out).exit_code == 0
    stored = json.loads(run("stats", out, "--json").stdout)["statistics"]
    assert {each["name"]: each["max"] for each in stored} == {"empty": None, "long": 5, "w": 1}
    assert "3 of 3 variables whole" in run("verify", out, "--nan").output
    assert run("diff", prefix, out).exit_code == 0
    assert run("export", prefix, "--tf", tmp_path / "other", "--rename", "^=>v/").exit_code == 0
    assert "renamed" in run("diff", prefix, tmp_path / "other").stdout
