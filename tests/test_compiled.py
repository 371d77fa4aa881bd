"""The compiled passes over float32 values: NumPy's, which serve where there are none, are the judge."""

import importlib.util
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ckpttool.analysis.values import compiled
from ckpttool.analysis.values.difference import Gap, Gaps
from ckpttool.analysis.values.tallies import Tallies, Tally

pytestmark = pytest.mark.skipif(compiled.float32 is None, reason="it could not be compiled when ckpttool was installed")

RELATIVE = 1e-12

SIZES = [1, 3, 31, 32, 33, 2047, 2048, 2049, 2081, 4096, 10_001]
"""Around the numbers of lanes, and of values that a step takes."""

ODD = {
    "all finite": [],
    "infinities and NaN": [np.inf, -np.inf, np.nan],
    "NaN alone": [np.nan] * 5000,
    "extremes": [3.4028235e38, -3.4028235e38, 1e-45, -1e-45, 0.0, -0.0],
}
"""What is among the values."""


def values(size: int, odd: str, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    array = random.standard_normal(size, dtype=np.float32)
    some = np.array(ODD[odd][:size], np.float32)
    array[random.permutation(size)[: some.size]] = some
    return array


def by_numpy(monkeypatch: pytest.MonkeyPatch, found: Callable[[], object]) -> object:
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "float32", None)
        return found()


def tallied(array: np.ndarray) -> tuple[Tally, list[list[float]]]:
    tallies = Tallies(array)
    return tallies.take(array), [part.tolist() for part in tallies.bins()]


def assert_are(found: Tally | Gap, wanted: Tally | Gap, last: float = 0.0) -> None:
    """Asserts that counts and extremes are the same, and sums but for rounding: the last digit of what is summed up."""
    for field, one, other in zip(found._fields, found, wanted, strict=True):
        near = field in ("mean", "squares", "dot", "of_one", "of_other")
        assert one == (pytest.approx(other, rel=RELATIVE, abs=max(last, 1e-12), nan_ok=True) if near else other), field


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("odd", ODD)
def test_tally(size, odd, monkeypatch):
    """Whatever the number of values and what is among them, they are tallied and counted as by NumPy."""
    array = values(size, odd)
    (found, bins), (wanted, same_bins) = tallied(array), by_numpy(monkeypatch, lambda: tallied(array))
    assert_are(found, wanted, last=1e-15 * float(np.abs(array).max(where=np.isfinite(array), initial=0)))
    assert bins == same_bins


def test_nothing():
    """Of no values there is no range, and no difference."""
    nothing = np.zeros(0, np.float32)
    assert Tally(*compiled.float32.tally(nothing, np.zeros(1 << 16, np.int64))) == Tally()
    assert Gap(*compiled.float32.compare(nothing, nothing, 0, 0)) == Gap()


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_any_processor(tmp_path):
    """What is compiled for any processor gives the same bits as what is compiled for this one."""
    include, source = sysconfig.get_path("include"), Path(compiled.__file__).with_name("_float32.c")
    options = ["-shared", "-fPIC", "-O3", "-ffp-contract=off", "-DPASS=", f"-I{include}"]
    subprocess.run(["cc", *options, str(source), "-o", str(tmp_path / "_float32.so")], check=True)
    spec = importlib.util.spec_from_file_location("_float32", tmp_path / "_float32.so")
    plain = importlib.util.module_from_spec(spec)
    one, other = values(10_001, "extremes"), values(10_001, "infinities and NaN", seed=1)
    for array in (one, other):
        counts, same_counts = np.zeros((2, 1 << 16), np.int64)
        assert plain.tally(array, counts) == compiled.float32.tally(array, same_counts)
        assert (counts == same_counts).all()
    assert repr(plain.compare(one, other, 1e-3, 1e-6)) == repr(compiled.float32.compare(one, other, 1e-3, 1e-6))


def test_sums_of_many(monkeypatch):
    """What is added up 262,144 times is not rounded each time as the sum is."""
    one, other = np.full(1 << 18, 0.1, np.float32), np.full(1 << 18, 0.3, np.float32)
    found = Gaps(one, 0, 0).between(one, other)
    assert found.of_one == pytest.approx(one.size * float(one[0]) ** 2, rel=1e-13)
    assert found.dot == pytest.approx(one.size * float(one[0]) * float(other[0]), rel=1e-13)
    assert_are(found, by_numpy(monkeypatch, lambda: Gaps(one, 0, 0).between(one, other)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("tolerance", [(0, 0), (0.5, 0), (0, 1e-3), (0.1, 0.1), (np.inf, 0), (0, np.inf)])
def test_compare(size, odd, tolerance, monkeypatch):
    """Whatever the number of pairs, what is among them and the tolerance, they are compared as by NumPy."""
    one, other = values(size, odd), values(size, odd, 1)
    other[::3] = one[::3]
    found, wanted = (
        Gaps(one, *tolerance).between(one, other),
        by_numpy(monkeypatch, lambda: Gaps(one, *tolerance).between(one, other)),
    )
    assert_are(found, wanted)


def test_anywhere_in_memory():
    """Values that are neither aligned nor contiguous are taken as they are meant."""
    array = values(3000, "infinities and NaN")
    unaligned = np.frombuffer(b"." + array.tobytes(), np.uint8)[1:].view(np.float32)
    apart = np.repeat(array, 2)[::2]
    assert not unaligned.flags.aligned
    assert tallied(unaligned) == tallied(apart) == tallied(array)
    assert_are(Gaps(array, 0, 0).between(unaligned, apart), Gaps(array, 0, 0).between(array, array))


def test_wrong_arrays():
    """What is not aligned, or not of the size that is needed, is an error before anything is read or written."""
    tally, compare = compiled.float32.tally, compiled.float32.compare
    four, counts = np.zeros(4, np.float32), np.zeros(1 << 16, np.int64)
    unaligned = np.zeros(17, np.uint8)[1:]
    for arguments in [(unaligned, counts), (b"12345", counts), (four, counts[1:])]:
        with pytest.raises(ValueError, match=r"^expected"):
            tally(*arguments)
    for arguments in [(four, four[1:]), (four, unaligned), (unaligned, four)]:
        with pytest.raises(ValueError, match=r"^expected"):
            compare(*arguments, 0, 0)
    with pytest.raises(TypeError):
        tally(four, bytes(8 << 16))
    assert not counts.any()
