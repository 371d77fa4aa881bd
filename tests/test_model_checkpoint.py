"""Checkpoints and variables: slices that cover an array, blocks that make it up, names that are not there."""

from contextlib import suppress
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import bundle, examples, strings, time_limit
from hypothesis import given
from hypothesis import strategies as st

from ckpttool.errors import CheckpointError, NotFoundError, NotSupportedError
from ckpttool.model import variable
from ckpttool.model.boxes import Extents, Selection, is_size, subdivide, tiling_fault

Box = tuple[tuple[int, ...], tuple[int, ...]]


def covers_once(shape: tuple[int, ...], boxes: list[Box]) -> bool:
    """Whether boxes are inside the shape and cover each of its elements once, by counting."""
    counts = np.zeros(shape, int)
    for start, extent in boxes:
        if any(s < 0 or n < 0 or s + n > d for s, n, d in zip(start, extent, shape, strict=True)):
            return False
        counts[tuple(slice(s, s + n) for s, n in zip(start, extent, strict=True))] += 1
    return bool((counts == 1).all())


shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)


@st.composite
def boxes_in(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Box]]:
    shape = draw(shapes)
    starts = st.tuples(*(st.integers(-1, d) for d in shape))
    extents = st.tuples(*(st.integers(0, d + 1) for d in shape))
    return shape, draw(st.lists(st.tuples(starts, extents), max_size=4))


@st.composite
def tilings(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Box]]:
    """A shape and boxes that cover it once, made by cutting one of them again and again."""
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple))
    boxes: list[Box] = [((0,) * len(shape), shape)]
    for _ in range(draw(st.integers(0, 5))):
        start, extent = boxes.pop(draw(st.integers(0, len(boxes) - 1)))
        d = draw(st.integers(0, len(shape) - 1))
        n = draw(st.integers(0, extent[d]))
        boxes.append((start, (*extent[:d], n, *extent[d + 1 :])))
        rest = (*extent[:d], extent[d] - n, *extent[d + 1 :])
        boxes.append(((*start[:d], start[d] + n, *start[d + 1 :]), rest))
    return shape, draw(st.permutations(boxes))


@examples
@given(boxes_in())
def test_tiling_fault_by_counting(case: tuple[tuple[int, ...], list[Box]]) -> None:
    """Boxes have no fault exactly if counting finds every element covered once."""
    shape, boxes = case
    assert (tiling_fault(shape, boxes) is None) == covers_once(shape, boxes)


@examples
@given(tilings(), st.data())
def test_tilings(case: tuple[tuple[int, ...], list[Box]], data: st.DataObject) -> None:
    """Cutting an array up leaves no fault; taking a piece away, doubling it or moving it leaves one."""
    shape, boxes = case
    assert tiling_fault(shape, boxes) is None
    i = data.draw(st.integers(0, len(boxes) - 1))
    start, extent = boxes[i]
    rest = boxes[:i] + boxes[i + 1 :]
    moved = ((start[0] + 1, *start[1:]), extent)
    for changed in (rest, [*boxes, boxes[i]], [*rest, moved]):
        assert (tiling_fault(shape, changed) is None) == covers_once(shape, changed)


@examples
@given(st.one_of(boxes_in(), tilings()), st.data())
def test_parts_of_an_array_by_counting(case: tuple[tuple[int, ...], list[Box]], data: st.DataObject) -> None:
    """Boxes that need not cover all of an array have no fault exactly if counting finds no element covered twice."""
    shape, boxes = case
    boxes = [box for box in boxes if data.draw(st.booleans())] + data.draw(
        st.lists(st.sampled_from(boxes or [((), ())]))
    )
    counts, is_inside = np.zeros(shape, int), True
    for start, extent in boxes:
        is_inside &= len(start) == len(shape) and all(
            0 <= s <= s + n <= d for s, n, d in zip(start, extent, shape, strict=True)
        )
        if is_inside:
            counts[tuple(slice(s, s + n) for s, n in zip(start, extent, strict=True))] += 1
    assert (tiling_fault(shape, boxes, partly=True) is None) == (is_inside and counts.max(initial=0) < 2)


def around(ring: int, size: int) -> list[Box]:
    """Four boxes that go around a square of a size, so that no straight cut parts them; within it as many rings."""
    first, last, length = ring, size - ring - 1, size - 2 * ring - 1
    across, down = (1, length), (length, 1)
    return [((first, first), across), ((first, last), down), ((last, first + 1), across), ((first + 1, first), down)]


def test_parts_that_go_around_each_other() -> None:
    """Boxes that no straight cut parts are held against each other."""
    boxes = around(0, 4)
    assert tiling_fault((4, 4), boxes, partly=True) is None
    assert tiling_fault((9, 9), [*boxes, ((1, 1), (2, 2))], partly=True) is None
    assert tiling_fault((9, 9), [*boxes, ((1, 1), (2, 3))], partly=True) == "overlapping slices, and elements missing"


def test_many_parts() -> None:
    """Half a million slices that are not all of a variable take seconds; more that are not told apart are refused."""
    with time_limit(10):
        assert tiling_fault((1 << 40,), [((2 * i,), (2,)) for i in range(500_000)], partly=True) is None
        assert tiling_fault((1 << 40,), [((i,), (2,)) for i in range(500_000)], partly=True) is not None
        grid = [((i, j), (1, 1)) for i in range(300) for j in range(300)]
        assert tiling_fault((1000, 1000), grid, partly=True) is None
        with pytest.raises(NotSupportedError, match="4000 slices along 2 dimensions"):
            tiling_fault((3_000, 3_000), [box for ring in range(1_000) for box in around(ring, 2_500)], partly=True)


FAULTS: dict[str, tuple[tuple[int, ...], list[Box], str]] = {
    "gap": ((4,), [((0,), (1,)), ((2,), (2,))], "sufficient slices: 3 of 4"),
    "nothing": ((4,), [], "sufficient slices: 0 of 4"),
    "overlap": ((4,), [((0,), (3,)), ((2,), (2,))], "overlapping slices: 5 elements for 4"),
    "gap and overlap": ((4,), [((0,), (2,)), ((1,), (2,))], "overlapping"),
    "twice the whole": ((4,), [((0,), (4,)), ((0,), (4,))], "overlapping"),
    "outside": ((4,), [((2,), (3,))], "outside"),
    "negative start": ((4,), [((-1,), (4,))], "outside"),
    "negative length": ((4,), [((2,), (-1,))], "outside"),
    "far outside": ((4,), [((2**63 - 1,), (2**63 - 1,))], "outside"),
    "another rank": ((4,), [((0, 0), (4, 1))], "outside"),
    "scalar twice": ((), [((), ()), ((), ())], "overlapping"),
}


@pytest.mark.parametrize(("shape", "boxes", "fault"), FAULTS.values(), ids=FAULTS.keys())
def test_faults(shape: tuple[int, ...], boxes: list[Box], fault: str) -> None:
    """A fault says what is wrong, in numbers of elements."""
    assert fault in (tiling_fault(shape, boxes) or "")


@pytest.mark.parametrize(
    ("shape", "boxes"),
    [
        ((0,), []),
        ((0,), [((0,), (0,)), ((0,), (0,))]),
        ((0, 3), [((0, 0), (0, 1)), ((0, 1), (0, 2))]),
        ((0, 3), [((0, 0), (0, 1))]),
        ((3, 0), [((0, 0), (1, 0)), ((1, 0), (2, 0))]),
        ((4,), [((0,), (4,)), ((2,), (0,))]),
        ((), [((), ())]),
    ],
    ids=["no boxes", "two boxes of nothing", "cut", "cut in part", "cut before", "a piece of nothing", "scalar"],
)
def test_boxes_without_elements(shape: tuple[int, ...], boxes: list[Box]) -> None:
    """Pieces without elements are no fault, nor is anything in an array without elements."""
    assert covers_once(shape, boxes)
    assert tiling_fault(shape, boxes) is None


def test_many_slices() -> None:
    """Fifty thousand slices of one variable are checked in a moment."""
    boxes = [((i, 0), (1, 300)) for i in range(50_000)]
    with time_limit(5):
        assert tiling_fault((50_000, 300), boxes) is None
        assert tiling_fault((50_000, 300), boxes[:-1]) is not None


def test_rank_of_slices() -> None:
    """Slices may have any rank, also more than the eight dimensions that TensorFlow reads."""
    shape = (2,) * 9
    halves = [((0,) * 9, (1, *shape[1:])), ((1,) + (0,) * 8, (1, *shape[1:]))]
    assert tiling_fault(shape, halves) is None
    corners = [(start, (1,) * 9) for start in product((0, 1), repeat=9)]
    assert tiling_fault(shape, corners) is None
    assert tiling_fault((1,) * 254, [((0,) * 254, (1,) * 254)]) is None


@pytest.mark.parametrize("rank", [22, 23, 64, 254])
def test_too_many_cuts(rank: int) -> None:
    """Slices that cut more dimensions than can be counted are refused at once, as are those just below."""
    fault = ""
    with time_limit(3), suppress(NotSupportedError):
        fault = tiling_fault((2,) * rank, [((0,) * rank, (1,) * rank)]) or ""
    assert "sufficient slices" in fault or not fault


# Cutting into blocks


def flat(shape: tuple[int, ...], start: tuple[int, ...], box: Selection) -> list[int]:
    """The row-major indexes within an array of `shape` at `start` that a box takes."""
    indexes = np.arange(prod(shape)).reshape(shape)
    moved = tuple(slice(s.stop and s.start - o, s.stop - o) for s, o in zip(box, start, strict=True))
    return [int(i) for i in indexes[moved].ravel()]


@examples
@given(st.lists(st.integers(0, 5), max_size=4).map(tuple), st.integers(1, 130), st.integers(0, 7))
def test_subdivide(shape: tuple[int, ...], limit: int, first: int) -> None:
    """A box is cut into runs of its row-major order that follow one another from its first element to its last."""
    start = (first,) * len(shape)
    boxes = list(subdivide(start, shape, limit))
    runs = [flat(shape, start, box) for box in boxes]
    assert [i for run in runs for i in run] == list(range(prod(shape)))
    assert all(len(run) <= limit for run in runs)


@pytest.mark.parametrize(
    ("shape", "limit", "count"),
    [
        ((), 1, 1),
        ((), 1000, 1),
        ((10,), 10, 1),
        ((10,), 3, 4),
        ((10,), 1, 10),
        ((4, 6), 24, 1),
        ((4, 6), 12, 2),
        ((4, 6), 13, 2),
        ((4, 6), 6, 4),
        ((4, 6), 5, 8),
        ((2, 3, 4), 4, 6),
        ((1000, 1000), 1_000_000, 1),
    ],
)
def test_number_of_blocks(shape: tuple[int, ...], limit: int, count: int) -> None:
    """As many rows are taken together as the limit allows."""
    assert len(list(subdivide((0,) * len(shape), shape, limit))) == count


@pytest.mark.parametrize("shape", [(2**40, 0), (0, 2**40), (2**40, 0, 2**20), (2**62, 0)])
def test_no_elements_are_no_work(shape: tuple[int, ...]) -> None:
    """A box without elements takes no time, however large its other dimensions are."""
    with time_limit(1):
        assert sum(1 for _ in subdivide((0,) * len(shape), shape, 1)) <= 1


def test_texts_of_sizes() -> None:
    """A size is written in ASCII's digits, no more than a number of 64 bits has."""
    assert all(map(is_size, ["0", "12", "007", "9" * 19]))
    assert not any(map(is_size, ["", "-1", "+1", " 1", "1_0", "1.0", "\u0663", "\u00b2", "9" * 20]))


# Values


def pieces_of(shape: tuple[int, ...], boxes: list[Box]) -> list[Extents]:
    return list(dict.fromkeys(tuple(zip(start, extent, strict=True)) for start, extent in boxes))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@examples
@given(tilings(), st.integers(1, 200), st.booleans(), st.integers(1, 3))
def test_values_by_every_way(
    directory: Path, case: tuple[tuple[int, ...], list[Box]], nbytes: int, big_endian: bool, shards: int
) -> None:
    """The whole array, its blocks of any size, and its runs of bytes are the values that were stored in slices."""
    shape, boxes = case
    array = np.arange(prod(shape), dtype=np.int32).reshape(shape)
    made = bundle({"w": array}, slices={"w": pieces_of(shape, boxes)}, big_endian=big_endian, shards=shards)
    variable = made.open(directory)["w"]
    np.testing.assert_array_equal(variable.numpy(), array, strict=True)
    filled = np.full_like(array, -1)
    for selection, block in variable.blocks(nbytes):
        assert block.nbytes <= max(nbytes, 4)
        assert (filled[selection] == -1).all()
        filled[selection] = block
    np.testing.assert_array_equal(filled, array)
    if variable.ranges is not None:
        runs = [Path(span.path).read_bytes()[span.offset : span.offset + span.nbytes] for span in variable.ranges]
        assert not big_endian
        assert b"".join(runs) == array.tobytes()


RANGES: list[tuple[str, tuple[int, ...], list[Extents], bool]] = [
    ("whole", (4, 6), [((0, 4), (0, 6))], True),
    ("rows", (4, 6), [((0, 1), (0, 6)), ((1, 3), (0, 6))], True),
    ("rows in another order", (4, 6), [((1, 3), (0, -1)), ((0, 1), (0, -1))], True),
    ("columns", (4, 6), [((0, 4), (0, 2)), ((0, 4), (2, 4))], False),
    ("columns of one row", (1, 6), [((0, 1), (0, 2)), ((0, 1), (2, 4))], True),
    ("quarters", (2, 2), [((0, 1), (0, 1)), ((0, 1), (1, 1)), ((1, 1), (0, 1)), ((1, 1), (1, 1))], False),
    ("middle of three", (1, 4, 2), [((0, 1), (0, 3), (0, 2)), ((0, 1), (3, 1), (0, 2))], True),
    ("middle of three, more before", (2, 4, 2), [((0, 2), (0, 3), (0, 2)), ((0, 2), (3, 1), (0, 2))], False),
]


@pytest.mark.parametrize(("shape", "pieces", "expected"), [row[1:] for row in RANGES], ids=[row[0] for row in RANGES])
def test_ranges(shape: tuple[int, ...], pieces: list[Extents], expected: bool, tmp_path: Path) -> None:
    """There are runs of bytes where the slices stand one after another in the array, and only there."""
    array = np.arange(prod(shape), dtype=np.int16).reshape(shape)
    ranges = bundle({"w": array}, slices={"w": pieces}).open(tmp_path)["w"].ranges
    assert (ranges is not None) == expected
    if ranges is not None:
        data = Path(ranges[0].path).read_bytes()
        assert b"".join(data[span.offset :][: span.nbytes] for span in ranges) == array.tobytes()


@pytest.mark.parametrize(
    ("array", "big_endian", "expected"),
    [
        (np.zeros(3, np.int8), True, True),
        (np.zeros(3, np.int16), True, False),
        (np.zeros(3, np.int16), False, True),
        (strings(b"a"), False, False),
    ],
    ids=["bytes", "big-endian numbers", "numbers", "strings"],
)
def test_ranges_of_dtypes(array: np.ndarray[Any, Any], big_endian: bool, expected: bool, tmp_path: Path) -> None:
    """There are no runs of bytes where values must be decoded or swapped."""
    variable = bundle({"w": array}, big_endian=big_endian).open(tmp_path)["w"]
    assert (variable.ranges is not None) == expected


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (100_000, 0), (2**40, 0), (2**62, 0)])
def test_values_without_elements(shape: tuple[int, ...], tmp_path: Path) -> None:
    """A variable without elements is an empty array at once, or an error where NumPy has no such array."""
    made = bundle({"w": np.zeros(0, np.float32)}).change("w", shape=shape)
    variable = made.open(tmp_path)["w"]
    assert variable.nbytes == 0
    with time_limit(2):
        if shape[0] == 2**62:  # Too large for NumPy, with or without elements.
            with pytest.raises(CheckpointError):
                variable.numpy()
        else:
            assert variable.numpy().shape == shape


def test_what_a_variable_says(tmp_path: Path) -> None:
    """A variable knows its name, dtype, shape and sizes without reading values."""
    made = bundle({"w": np.zeros((2, 3), np.float32), "s": strings(b"abc", b"")})
    made.shards = [None]
    checkpoint = made.open(tmp_path)
    variable = checkpoint["w"]
    assert (variable.name, variable.dtype.name, variable.shape) == ("w", "float32", (2, 3))
    assert (variable.size, variable.nbytes) == (6, 24)
    assert repr(variable) == "Variable('w', float32, [2, 3])"
    assert (checkpoint["s"].size, checkpoint["s"].nbytes) == (2, 2 + 4 + 3)
    assert len(variable.slices) == 1


def test_checkpoint_is_a_mapping(tmp_path: Path) -> None:
    """A checkpoint is a mapping of names, in the index's order, to variables."""
    checkpoint = bundle({name: np.zeros(1) for name in ["b", "a/c", "a", "\u00e4"]}).open(tmp_path)
    assert list(checkpoint) == ["a", "a/c", "b", "\u00e4"]
    assert len(checkpoint) == 4
    assert "a" in checkpoint
    assert "c" not in checkpoint
    assert 7 not in checkpoint
    assert checkpoint.get("c") is None
    assert "4 variables" in repr(checkpoint)


def test_near_names_are_looked_for_where_they_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`get` tells nobody: looking for names near to each of many would take minutes."""
    monkeypatch.setattr("ckpttool.model.checkpoint.choices_hint", lambda *_: pytest.fail("looked for"))
    checkpoint = bundle({"a": np.zeros(1)}).open(tmp_path)
    assert (checkpoint.get("a"), checkpoint.get("b"), checkpoint.get("b", 7)) == (checkpoint["a"], None, 7)


def test_slices_are_sought_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many slices in many blocks, each is looked at where it meets one."""
    met: list[object] = []
    whole = variable.intersection
    monkeypatch.setattr(variable, "intersection", lambda *boxes: met.append(boxes) or whole(*boxes))
    array = np.arange(600, dtype=np.int32).reshape(200, 3)
    for number, extents in enumerate(
        (
            [((2 * i, 2), (0, -1)) for i in range(100)],
            [((2 * i, 2), (j, 1)) for i in reversed(range(100)) for j in range(3)],
            [((0, -1), (j, 1)) for j in range(3)],
        )
    ):
        (tmp_path / str(number)).mkdir()
        checkpoint = bundle({"p": array}, slices={"p": extents}).open(tmp_path / str(number))
        met.clear()
        blocks = [(box, block.copy()) for box, block in checkpoint["p"].blocks(24)]
        assert len(blocks) == 100
        assert len(met) <= 3 * len(blocks)
        for box, block in blocks:
            np.testing.assert_array_equal(block, array[box])


def test_a_name_that_is_not_there(tmp_path: Path) -> None:
    """A name that is not there is a KeyError with the path and near names."""
    checkpoint = bundle({"dense/kernel": np.zeros(1), "dense/bias": np.zeros(1)}).open(tmp_path)
    with pytest.raises(NotFoundError) as caught:
        checkpoint["dense/kernle"]
    assert isinstance(caught.value, KeyError)
    assert caught.value.path == checkpoint.path
    assert "dense/kernel" in (caught.value.hint or "")
    assert "Key dense/kernle not found in checkpoint" in str(caught.value)
    with pytest.raises(NotFoundError, match=r"there are dense/bias, dense/kernel$"):
        checkpoint["xyz"]
