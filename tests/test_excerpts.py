"""`ckpttool cat`: slices are NumPy's, and what is printed are the values."""

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from bundles import bundle, examples, strings, time_limit
from conftest import FIXTURES
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ckpttool
from ckpttool.analysis.values.excerpts import at, edges, parse_slice, sliced
from ckpttool.errors import CorruptionError
from ckpttool.render.arrays import array_text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the examples of Hypothesis are written."""
    return tmp_path_factory.mktemp("excerpts")


def numbers(shape) -> np.ndarray:
    return np.arange(np.prod(shape, dtype=int), dtype=np.int32).reshape(shape)


@st.composite
def arrays_and_slices(draw):
    """A shape, and a slice as it is typed."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6))
    bound = st.one_of(st.just(""), st.integers(-8, 8).map(str))
    ranges = st.builds("{}:{}{}".format, bound, bound, st.sampled_from(["", ":", ":1", ":2", ": 5", ":-1", ": -3"]))
    parts = [
        draw(st.one_of(ranges, st.just(":"), *([st.integers(-size, size - 1).map(str)] if size else [])))
        for size in shape
    ]
    start = draw(st.integers(0, len(parts)))
    end = draw(st.integers(start, len(parts)))
    if draw(st.booleans()):
        parts[start:end] = ["..."]
    elif draw(st.booleans()):
        parts = parts[:start]
    return shape, ", ".join(parts)


@examples
@given(case=arrays_and_slices(), cut=st.booleans())
def test_slices_are_numpys(case, cut, folder):
    """A slice takes what NumPy takes, of whole variables and of partitioned ones."""
    shape, text = case
    array = numbers(shape)
    slices = {}
    if cut and array.size and shape and shape[0] > 1:
        others = [(0, -1)] * (len(shape) - 1)
        slices = {"w": [((0, 1), *others), ((1, shape[0] - 1), *others)]}
    variable = bundle({"w": array}, slices=slices).open(folder)["w"]
    taken = sliced(variable, parse_slice(text, shape))
    wanted = eval(f"array[{text}]" if text else "array[()]", {"array": array})
    assert taken.shape == wanted.shape
    np.testing.assert_array_equal(taken.numpy(), wanted)


def test_an_index_of_a_scalar():
    """One index of what has no dimension is one too many, and is counted as one."""
    with pytest.raises(ValueError, match=r"there is 1 index, and the shape \[\] has 0 dimensions"):
        parse_slice("0", ())


def test_backwards(run, tmp_path):
    """A slice with a negative step is printed, written, and given in JSON as NumPy has it: strings, too."""
    arrays = {"w": numbers((3, 4)), "s": strings(b"a", b"b", b"c"), "e": np.float32([1.5, 2.5])}
    model = bundle(arrays).write(tmp_path)
    assert run("cat", model, "w", "--slice", "::-2,3:0:-1").stdout == "[[11, 10,  9],\n [ 3,  2,  1]]\n"
    assert run("cat", model, "s", "--slice=::-1").stdout == '["c", "b", "a"]\n'
    assert json.loads(run("cat", model, "w", "--slice", "-1,::-1", "--json").stdout)["values"] == [11, 10, 9, 8]
    assert run("cat", model, "e", "--slice=::-1", "--npy", tmp_path / "e.npy").exit_code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "e.npy"), np.float32([2.5, 1.5]))


@examples
@given(shape=hnp.array_shapes(min_dims=1, max_dims=3, max_side=40), nbytes=st.integers(1, 400))
def test_blocks_do_not_matter(shape, nbytes, folder):
    """The edges are the same, whatever the blocks that the variable is read in."""
    array = numbers(shape)
    variable = bundle({"w": array}).open(folder)["w"]
    whole = type(variable).blocks
    variable_class = type("Cut", (type(variable),), {"blocks": lambda self: whole(self, nbytes)})
    cut = variable_class(variable.name, variable.dtype, variable.shape, variable._source, variable.key)
    np.testing.assert_array_equal(at(cut, edges(shape)), array[np.ix_(*edges(shape))])


WRONG = {
    "3": "the index 3 is not within 3",
    "-4": "the index -4 is not within 3",
    "0,0,0": "there are 3 indices",
    "0,...,0,0": "there are 3 indices",
    "...,...": "is no index",
    "x": "is no index",
    "": None,
    "0,": "is no index",
    "1:2:3:4": "is no index",
    "::0": "must not be 0",
    "1.5": "is no index",
    "9" * 5000: "is no index",
    "0:" + "9" * 5000: "is no index",
    "\x1b[2J": r"\x1b",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: repr(text[:9]))
def test_wrong_slices(text, run, tmp_path):
    """A slice that is none, or not one of this shape, is wrong usage, and what is wrong with it is said."""
    result = run("cat", bundle({"w": numbers((3, 4))}).write(tmp_path), "w", f"--slice={text}")
    if WRONG[text] is None:
        assert result.exit_code == 0
        return
    assert (result.exit_code, result.stdout) == (2, "")
    assert WRONG[text] in " ".join(result.stderr.split())
    assert "\x1b" not in result.stderr
    assert len(result.stderr) < 1000


def printed(run, tmp_path, array: np.ndarray, *options: str) -> str:
    """What is printed of a variable of these values, without the last newline."""
    result = run("cat", bundle({"w": array}).write(tmp_path), "w", *options)
    assert result.exit_code == 0, result.output
    return result.stdout.removesuffix("\n")


PRINTED = {
    "scalar": (np.float32(0.1), "0.1"),
    "nothing": (np.zeros((2, 0), np.int8), "[]"),
    "vector": (np.array([1, 20, -3]), "[ 1, 20, -3]"),
    "matrix": (np.array([[1, 2], [3, 4]]), "[[1, 2],\n [3, 4]]"),
    "three dimensions": (numbers((2, 1, 2)), "[[[0, 1]],\n [[2, 3]]]"),
    "bool": (np.array([True, False]), "[true, false]"),
    "float16": (np.array([0.1, 6e-08], np.float16), "[  0.1, 6e-08]"),
    "float32": (np.array([0.1, 123456.7, 1e-45], np.float32), "[     0.1, 123456.7,    1e-45]"),
    "float64": (np.array([0.1, np.nan, -np.inf]), "[ 0.1,  nan, -inf]"),
    "complex": (
        np.array([1 - 0.1j, complex(0, -0.0), complex(np.nan, np.inf)], np.complex64),
        "[1.0-0.1j, 0.0-0.0j, nan+infj]",
    ),
    "uint64": (np.array([2**64 - 1], np.uint64), "[18446744073709551615]"),
    "bfloat16": (np.array([0.1, -3, np.inf]).astype(ml_dtypes.bfloat16), "[0.100098,       -3,      inf]"),
    "int4": (np.array([-8, 7]).astype(ml_dtypes.int4), "[-8,  7]"),
    "uint2": (np.array([3, 0]).astype(ml_dtypes.uint2), "[3, 0]"),
    "float8": (np.array([0.1, 448, np.nan]).astype(ml_dtypes.float8_e4m3fn), "[0.101562,      448,      nan]"),
    "strings": (strings(b"a", "é".encode(), b"\xff\n", b'"'), '["a", "é", b\'\\xff\\n\', """]'),
}


@pytest.mark.parametrize("name", PRINTED)
def test_printed(name, run, tmp_path):
    """Values are printed as they are, in as many digits as tell them from their neighbors."""
    array, text = PRINTED[name]
    assert printed(run, tmp_path, np.asarray(array)) == text


def test_digits_are_enough(run, tmp_path):
    """What is printed of a number is read as that number again, in its own type."""
    for dtype in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16):
        array = np.random.default_rng(6).standard_normal(99).astype(dtype)
        texts = printed(run, tmp_path, array).strip("[]").split(", ")
        np.testing.assert_array_equal(np.array([float(text) for text in texts]).astype(dtype), array)


def test_edges(run, tmp_path):
    """Of a large variable the first and last few are printed, and a gap where others are left out."""
    text = printed(run, tmp_path, numbers((1000,)))
    assert text == "[  0,   1,   2, …, 997, 998, 999]"
    assert printed(run, tmp_path, numbers((2, 200))).splitlines() == [
        "[[  0,   1,   2, …, 197, 198, 199],",
        " [200, 201, 202, …, 397, 398, 399]]",
    ]
    assert printed(run, tmp_path, numbers((200, 2))).splitlines()[2:5] == [" [  4,   5],", " …,", " [394, 395],"]
    assert printed(run, tmp_path, numbers((100,))).count(",") == 99


def test_edges_of_many_dimensions(run, tmp_path):
    """Of ten dimensions only the first values fit, and gaps say that there are more."""
    assert printed(run, tmp_path, numbers((3,) * 10)) == "[" * 10 + "0, …],\n" + "".join(
        f"{' ' * depth}…]{',' if depth > 1 else ''}\n" for depth in range(9, 0, -1)
    ).rstrip("\n")


@examples
@given(shape=hnp.array_shapes(min_dims=0, max_dims=10, min_side=0, max_side=12))
def test_edges_are_few_and_in_order(shape):
    """However large an array is, no more than a hundred values are shown, and all where there are no more."""
    shown = edges(shape)
    assert np.prod([len(indices) for indices in shown]) <= 100
    assert all(list(indices) == sorted(set(indices)) for indices in shown)
    if np.prod(shape, dtype=float) <= 100:
        assert [len(indices) for indices in shown] == list(shape)
    assert all(indices[0] == 0 for indices in shown if len(indices))


def test_full(run, tmp_path):
    """--full prints every value, and a slice all of its own."""
    assert printed(run, tmp_path, numbers((50, 7)), "--full").count(",") == 349
    assert "…" not in printed(run, tmp_path, numbers((50, 7)), "--slice", "0:40")
    rows = printed(run, tmp_path, numbers((70_000,)), "--full").strip("[]").split(", ")
    assert [int(text) for text in rows] == list(range(70_000))


def test_precision(run, tmp_path):
    """--precision says how many digits, of floats and of complex numbers; integers have all of theirs."""
    assert printed(run, tmp_path, np.array([np.pi, -1e9]), "--precision", "3") == "[  3.14, -1e+09]"
    assert printed(run, tmp_path, np.array([1 / 3 + 2j]), "--precision", "2") == "[0.33+2j]"
    assert printed(run, tmp_path, np.array([12345]), "--precision", "2") == "[12345]"
    assert printed(run, tmp_path, np.array([1.25]).astype(ml_dtypes.bfloat16), "--precision", "2") == "[1.2]"


HOSTILE = strings(b"\x1b[2J\x07", "\u202eabc\x9b31m".encode(), b"\xff\x1b[1m", b"a\nb\tc", b"\x00")


@pytest.mark.parametrize("options", [[], ["--full"], ["--json"], ["--slice", ":"]], ids=" ".join)
def test_strings_drive_no_terminal(options, run, tmp_path):
    """Strings are printed with whatever could drive a terminal escaped."""
    text = printed(run, tmp_path, HOSTILE, *options)
    assert not [c for c in text if not c.isprintable() and c != "\n"]
    if options == ["--json"]:
        values = json.loads(text)["values"]
        assert values[:2] == ["\x1b[2J\x07", "\u202eabc\x9b31m"]
        assert values[2] == {"base64": "/xtbMW0="}


def test_json(run, tmp_path):
    """JSON has every value as it is: NaN and infinities as strings, complex numbers as pairs, shapes as lists."""

    def values(array, *options):
        return json.loads(printed(run, tmp_path, array, "--json", *options))

    document = values(np.array([[0.1, np.nan], [np.inf, -np.inf]]))
    assert document == {
        "schema": "ckpttool.cat/1",
        "path": str(tmp_path / "model"),
        "name": "w",
        "dtype": "float64",
        "shape": [2, 2],
        "slice": None,
        "values": [[0.1, "nan"], ["inf", "-inf"]],
    }
    assert values(numbers((200, 2)), "--slice", "1:3,0")["values"] == [2, 4]
    assert len(values(numbers((200, 2)))["values"]) == 200
    assert values(np.array(1 + 2j))["values"] == [1, 2]
    assert values(np.array(True))["values"] is True
    assert values(np.array([-8, 7]).astype(ml_dtypes.int4))["values"] == [-8, 7]
    assert values(np.array([0.5, np.nan]).astype(ml_dtypes.bfloat16))["values"] == [0.5, "nan"]
    assert values(np.array([2**64 - 1], np.uint64))["values"] == [2**64 - 1]
    assert values(np.zeros((3, 0)))["values"] == []


FIXTURE_VARIABLES = [
    (prefix, name)
    for prefix in (FIXTURES / "dtypes" / "model", FIXTURES / "strings" / "model", FIXTURES / "partitioned" / "slices")
    for name in ckpttool.open_checkpoint(prefix)
]


@pytest.mark.parametrize("options", [[], ["--json"]], ids=" ".join)
def test_every_fixture_is_printed(options, run):
    """Every dtype there is has a text and JSON, whose numbers are the values."""
    for prefix, name in FIXTURE_VARIABLES:
        variable = ckpttool.open_checkpoint(prefix)[name]
        result = run("cat", prefix, name, *options)
        assert result.exit_code == 0, result.output
        if options == ["--json"] and variable.dtype.name[:3] not in ("str", "com"):
            values = np.array(json.loads(result.stdout)["values"], np.float64)
            np.testing.assert_array_equal(values, variable.numpy().astype(np.float64))


def test_npy(run, tmp_path):
    """--npy writes the values, or a slice of them, as np.load reads them; and no file is replaced unasked."""
    array = np.random.default_rng(6).standard_normal((300, 7))
    prefix = bundle({"w": array, "s": strings(b"a", b"bc")}).write(tmp_path)
    file = tmp_path / "out.npy"
    assert run("cat", prefix, "w", "--npy", file).exit_code == 0
    np.testing.assert_array_equal(np.load(file), array)
    assert run("cat", prefix, "w", "--npy", file, "--force").stderr == f"wrote w, 16.8 kB · {file}\n"
    assert run("cat", prefix, "w", "--npy", file, "--force", "--quiet").stderr == ""
    assert run("cat", prefix, "w", "--npy", file).exit_code == 2
    result = run("cat", prefix, "w", "--npy", file, "--force", "--slice", "5::50, -3:")
    assert (result.exit_code, result.stdout) == (0, "")
    np.testing.assert_array_equal(np.load(file), array[5::50, -3:])
    assert run("cat", prefix, "s", "--npy", file, "--force", "--slice", "1:").exit_code == 0
    assert np.load(file).tolist() == [b"bc"]
    assert run("cat", prefix, "w", "--npy", f"{prefix}.index", "--force").exit_code == 2


def test_npy_into_a_pipe(fresh_python, tmp_path):
    """--npy - writes the file to standard output, and nothing of one that is damaged."""
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    made = bundle({"w": values})
    command = ["-m", "ckpttool", "cat", made.write(tmp_path), "w", "--npy", "-"]
    with open(tmp_path / "out", "wb") as file:
        subprocess.run([sys.executable, *command], stdout=file, check=True)
    assert np.load(tmp_path / "out").tolist() == values.tolist()
    made.change("w", crc32c=1)
    made.write(tmp_path)
    damaged = fresh_python(*command)
    assert (damaged.returncode, damaged.stdout) == (4, "")


def test_npy_of_what_numpy_lacks(run, tmp_path):
    """What NumPy has no type for is written as its bits, and that is said."""
    array = np.array([1, -2.5]).astype(ml_dtypes.bfloat16)
    prefix = bundle({"w": array}).write(tmp_path)
    result = run("cat", prefix, "w", "--npy", tmp_path / "out.npy")
    assert "uint16" in result.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy").view(ml_dtypes.bfloat16), array)


def test_options_that_exclude_each_other(run, tmp_path):
    """No option is ignored."""
    prefix = bundle({"w": numbers((2,))}).write(tmp_path)
    for options in (["--npy", "x", "--json"], ["--npy", "x", "--full"], ["--force"], ["--json", "--precision", "2"]):
        assert run("cat", prefix, "w", *options).exit_code == 2, options
    assert list(Path().glob("x*")) == []


@pytest.mark.parametrize("options", [[], ["--full"], ["--json"], ["--slice", ":,0:0"]], ids=" ".join)
def test_huge_shapes_of_nothing(options, run, tmp_path):
    """A shape of 2^40 rows of nothing is printed at once, and takes no memory."""
    prefix = bundle({"w": np.zeros((0, 3), np.int8)}).change("w", shape=[1 << 40, 0]).write(tmp_path)
    with time_limit(2):
        result = run("cat", prefix, "w", *options)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["values"] == [] if options == ["--json"] else result.stdout == "[]\n"


def test_what_is_not_there(run, tmp_path):
    """No such variable is said with near names; damaged values are printed in no way."""
    made = bundle({"dense/kernel": np.ones(200), "w": np.ones(200)})
    made.change("w", crc32c=1)
    prefix = made.write(tmp_path)
    result = run("cat", prefix, "dense/kernal")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "dense/kernel" in result.stderr
    for options in ([], ["--full"], ["--json"], ["--slice", "0"], ["--npy", str(tmp_path / "w.npy")]):
        result = run("cat", prefix, "w", *options)
        assert (result.exit_code, result.stdout) == (4, ""), options
        assert "'w'" in result.stderr
    assert not (tmp_path / "w.npy").exists()
    with pytest.raises(CorruptionError):
        at(made.open(tmp_path)["w"], edges((200,)))


def test_memory(tmp_path):
    """Of a variable of 64 MB the edges and a slice take a few MB, and an array's text is no list of all texts."""
    variable = bundle({"w": np.zeros(16 << 20, np.float32)}).open(tmp_path)["w"]
    list(array_text(at(variable, edges(variable.shape))))
    tracemalloc.start()
    try:
        at(variable, edges(variable.shape))
        sliced(variable, parse_slice("5::1000000", variable.shape)).numpy()
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    few = np.zeros(1 << 16, np.float32)
    tracemalloc.start()
    try:
        for _ in array_text(few):
            pass
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("value", [1.5, float("nan")])
def test_one_value_is_an_array_too(value):
    """Of float64, NumPy's scalar is one of Python's floats, which JSON has otherwise than an array's values."""
    variable = ckpttool.from_arrays({"x": np.array([0.0, value])})["x"]
    part = sliced(variable, parse_slice("1", variable.shape)).numpy()
    assert isinstance(part, np.ndarray)
    assert np.array_equal(part, np.array(value), equal_nan=True)
