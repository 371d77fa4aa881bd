"""What is fed: literals, files and standard input → values → arrays of the input's dtype and shape. No TensorFlow."""

import json
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpttool.analysis.graphs.fitting import fit
from ckpttool.errors import CheckpointError
from ckpttool.formats.feeds import parse_feed, parse_literal
from ckpttool.model.dtypes import DTYPES

LITERALS = {
    "50": 50,
    " -2.5 ": -2.5,
    "1e3": 1e3,
    "[1, 2.5]": [1, 2.5],
    "((1, 2), [3, 4])": [[1, 2], [3, 4]],
    "True": True,
    "false": False,
    "[inf, -inf]": [float("inf"), float("-inf")],
    "1+2j": 1 + 2j,
    "'text'": "text",
    "b'\\xff'": b"\xff",
    "[]": [],
    "0x10": 16,
}
NOT_LITERALS = [
    *(
        "",
        "x",
        "1 +",
        "__import__('os')",
        "[x for x in (1,)]",
        "2**99",
        "'a'.upper()",
        "f'{1}'",
        "{1: 2}",
        "1 if 1 else 2",
    ),
    *(
        "1+1",
        "[0]*9",
        "-'a'",
        "...",
        "None",
        "\0",
        "1" * 5000,
        "[" * 100 + "]" * 100,
        "[" * 70 + "]" * 70,
        "1" * (1 << 20) + "0",
    ),
    *("-" * 10_000 + "1", "(" * 10_000),
]


def no_stdin() -> bytes:
    raise AssertionError("nobody asked for it")


@pytest.mark.parametrize(("text", "value"), LITERALS.items())
def test_literals(text, value):
    """Python's literals, and the names of a few numbers, are what they are."""
    assert parse_literal(text) == value
    assert type(parse_literal(text)) is type(value)


def test_nan_is_a_literal():
    """NaN can be fed, though Python has no literal for it."""
    assert np.isnan(parse_literal("[nan]")).all()


@pytest.mark.parametrize("text", NOT_LITERALS, ids=lambda text: text[:20])
def test_what_is_no_literal_is_refused_and_never_run(text):
    """Calls, operators, names and monsters are a ValueError with what is meant, of one short line."""
    with pytest.raises(ValueError, match=r"no literal|too many") as caught:
        parse_literal(text)
    assert len(str(caught.value)) < 200


@given(st.text())
def test_any_text_is_a_value_or_a_value_error(text):
    """No text makes the parser raise anything else."""
    with suppress(ValueError):
        parse_feed("" if text.startswith("@") else text, is_string=False, stdin=no_stdin)


STRINGS = {
    "hello": "hello",
    "123": "123",
    "[1, 2]": "[1, 2]",
    "['a', b'b']": ["a", b"b"],
    '"quoted"': "quoted",
    "@@home": "@home",
    "": "",
}


@pytest.mark.parametrize(("text", "value"), STRINGS.items())
def test_an_input_of_strings_takes_bare_text(text, value):
    """Text is taken as it is, unless it is a literal of strings; @@ is how it begins with @."""
    assert parse_feed(text, is_string=True, stdin=no_stdin) == value


def test_files(tmp_path):
    """Arrays from .npy and .npz, lists from .json (bytes as --json has them), for strings the bytes of any file."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", one=array, two=array + 1)
    np.savez(tmp_path / "only.npz", one=array)
    (tmp_path / "a.json").write_text("[[1, 2.5]]")
    (tmp_path / "b.json").write_text('["a", {"base64": "/w=="}]')
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff")

    def fed(name, is_string=False):
        return parse_feed(f"@{tmp_path / name}", is_string=is_string, stdin=no_stdin)

    assert fed("a.npy").tobytes() == array.tobytes()
    assert fed("a.npz[two]").tolist() == (array + 1).tolist()
    assert fed("only.npz").tolist() == array.tolist()
    assert fed("a.json") == [[1, 2.5]]
    assert fed("b.json", is_string=True) == ["a", b"\xff"]
    assert fed("image.png", is_string=True) == b"\x89PNG\xff"


FAULTS = {
    "gone.npy": "no such file",
    "two.npz": r"the archive has 2 arrays .* say which: @.*two.npz\[a\]",
    "two.npz[c]": "Key c not found",
    "pickled.npy": "pickle",
    "bad.json": "no JSON",
    "null.json": "an input is a number, a string, or lists of them",
    "x.bin": "numbers are read from .npy, .npz and .json",
}


@pytest.mark.parametrize(("name", "message"), FAULTS.items(), ids=FAULTS)
def test_a_file_that_gives_no_value_says_why(tmp_path, name, message):
    """What is not there, or not of its kind, is an error of ours; nothing is unpickled."""
    np.savez(tmp_path / "two.npz", a=[1], b=[2])
    np.save(tmp_path / "pickled.npy", np.array([{}], object), allow_pickle=True)
    for file, text in {"bad.json": "[1,", "null.json": "[null]", "x.bin": "x"}.items():
        (tmp_path / file).write_text(text)
    with pytest.raises(CheckpointError, match=message):
        parse_feed(f"@{tmp_path / name}", is_string=False, stdin=no_stdin)


def test_standard_input(tmp_path):
    """`@-` is a .npy file, else JSON; for an input of strings, else bytes as they are."""
    np.save(tmp_path / "a.npy", [1.5])
    data = (tmp_path / "a.npy").read_bytes()
    assert parse_feed("@-", is_string=False, stdin=lambda: data).tolist() == [1.5]
    assert parse_feed("@-", is_string=False, stdin=lambda: json.dumps([1]).encode()) == [1]
    assert parse_feed("@-", is_string=True, stdin=lambda: b"\xff\n") == b"\xff\n"
    for wrong in (b"\xff", data[:-1]):
        with pytest.raises(CheckpointError):
            parse_feed("@-", is_string=False, stdin=lambda wrong=wrong: wrong)


FITS = {
    "int to float": (50, "float32", (), np.float32(50)),
    "whole float to int": (50.0, "int64", (), np.int64(50)),
    "decimal, rounded as any literal": ([0.1], "float32", (None,), np.float32([0.1])),
    "0 for False": (0, "bool", (), np.False_),
    "bool to float": (True, "float32", (), np.float32(1)),
    "array": (np.array([1, 2], np.int64), "int32", (2,), np.int32([1, 2])),
    "exact double": (np.array([0.5]), "float32", (1,), np.float32([0.5])),
    "nan": (np.array([np.nan]), "float32", (1,), np.float32([np.nan])),
    "complex": ([1 + 2j], "complex64", (1,), np.complex64([1 + 2j])),
    "empty": ([], "int32", (None,), np.int32([])),
    "any rank": ([[1]], "int32", None, np.int32([[1]])),
    "uint64": (2**64 - 1, "uint64", (), np.uint64(2**64 - 1)),
}


@pytest.mark.parametrize(("value", "dtype", "shape", "expected"), FITS.values(), ids=FITS)
def test_a_value_that_fits_becomes_the_inputs_dtype(value, dtype, shape, expected):
    """Casting that loses nothing is done, bit for bit what NumPy makes of it."""
    array = fit(value, DTYPES[dtype], shape, name="x")
    assert (array.dtype, array.shape, array.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


MISFITS = {
    "fraction to int": (0.5, "int32", (), r"x takes int32\[\], and what came is float64 0.5: it would change"),
    "too large": (300, "uint8", (), "it would change"),
    "negative": (-1, "uint64", (), "it would change"),
    "sign": (np.array([2**63], np.uint64), "int64", (1,), "it would change"),
    "overflow": (1e39, "float32", (), "it would change"),
    "inexact int": (2**24 + 1, "float32", (), "it would change"),
    "doubles": (
        np.array([0.1, 0.5, 0.3]),
        "float32",
        (3,),
        r"float64\[3\]: 2 of 3 values would change · round them: array.astype\('float32'\)",
    ),
    "2 for bool": (2, "bool", (), "it would change"),
    "imaginary": (1j, "float32", (), "it would change"),
    "nan to int": (float("nan"), "int32", (), "it would change"),
    "text": ("a", "float32", (), "and what came is"),
    "huge": (10**30, "int64", (), "what came is"),
    "ragged": ([[1], [1, 2]], "float32", (None, None), "rows are of different lengths"),
    "number for text": (1, "string", (), "1 is no string"),
    "ragged text": ([["a"], "b"], "string", (None,), "rows are of different lengths"),
    "resource": (1, "resource", (), "which can't be fed"),
    "rank": ([1], "float32", (None, 2), r"takes float32\[\?,2\], and what came is float32\[1\]$"),
    "batch": ([1, 2], "float32", (None, 2), r"came is float32\[2\] · give a batch, .*--batch-dim"),
    "scalar": (1, "float32", (2,), r"came is float32\[\] · give a list, such as \[50\]; .*--broadcast"),
    "scalar for a matrix": (1, "float32", (2, 3), r"came is float32\[\] · give nested lists, or a file .*--broadcast"),
}


@pytest.mark.parametrize(("value", "dtype", "shape", "message"), MISFITS.values(), ids=MISFITS)
def test_a_value_that_does_not_fit_is_refused(value, dtype, shape, message):
    """The message has what was expected, what came, and what to do."""
    with pytest.raises(ValueError, match=message):
        fit(value, DTYPES[dtype], shape, name="x")


def test_a_batch_dimension_and_broadcasting_are_done_when_asked_only():
    """--batch-dim adds a 1 in front where just that is missing, and --broadcast fills a shape; neither does more."""
    float32 = DTYPES["float32"]
    assert fit([1, 2], float32, (None, 2), name="x", batch_dim=True).tolist() == [[1, 2]]
    assert fit([[1, 2]], float32, (None, 2), name="x", batch_dim=True).tolist() == [[1, 2]]
    assert fit(3, float32, (), name="x", batch_dim=True, broadcast=True) == 3
    assert fit(3, float32, (None, 2), name="x", broadcast=True).tolist() == [[3, 3]]
    assert fit("a", DTYPES["string"], (2,), name="x", broadcast=True).tolist() == [b"a", b"a"]
    for asked in ({"batch_dim": True}, {"broadcast": True}):
        with pytest.raises(ValueError, match="what came"):
            fit([1, 2, 3], float32, (None, 2), name="x", **asked)


def test_strings_become_bytes():
    """Text is UTF-8, bytes stay, fixed-width arrays too."""
    string = DTYPES["string"]
    assert fit(["é", b"\xff"], string, (None,), name="x").tolist() == ["é".encode(), b"\xff"]
    assert fit(np.array([b"ab", b"c"]), string, (2,), name="x").tolist() == [b"ab", b"c"]
    assert fit("a", string, (), name="x")[()] == b"a"
