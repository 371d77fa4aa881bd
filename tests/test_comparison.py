"""`ckpttool diff` of checkpoints: NumPy, in float64, is the judge of values."""

import json
import math
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from bundles import bundle, examples, strings, time_limit
from conftest import FIXTURES
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ckpttool
from ckpttool.analysis.values import difference as module
from ckpttool.analysis.values.comparison import compare
from ckpttool.analysis.values.difference import Difference, difference
from ckpttool.errors import CorruptionError
from ckpttool.formats.tensor_slices.writing import write_tensor_slices
from ckpttool.model.names import NearNames

pytestmark = pytest.mark.usefixtures("passes")

RELATIVE = 1e-12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the examples of Hypothesis are written."""
    return tmp_path_factory.mktemp("comparison")


def differing(a: np.ndarray, b: np.ndarray, folder, **tolerance) -> Difference:
    one, other = (ckpttool.open_checkpoint(bundle({"w": w}).write(folder, n)) for n, w in (("a", a), ("b", b)))
    return difference(one["w"], other["w"], **tolerance)


def wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64).ravel()


def norm(array: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        return float(np.sqrt(np.sum(np.abs(array) ** 2)))


def judged(a: np.ndarray, b: np.ndarray, rtol: float, atol: float) -> Difference:
    """What NumPy says."""
    x, y = wide(a), wide(b)
    same = (a == b).ravel()
    if x.dtype.kind == "c":  # Part by part.
        pairs = np.stack([x.real, x.imag], 1), np.stack([y.real, y.imag], 1)
        same |= np.isclose(*pairs, 0, 0, equal_nan=True).all(1)
    else:
        same |= np.isnan(x) & np.isnan(y)
    with np.errstate(all="ignore"):
        apart = np.nan_to_num(np.abs(x - y), nan=np.inf, posinf=np.inf)[~same]
        within = same | np.isclose(x, y, rtol, atol)
        norms = norm(x) * norm(y)
        cosine = np.vdot(x, y).real / norms if 0 < norms < np.inf and not same.all() else np.nan
    return Difference(
        x.size,
        int((~same).sum()),
        int((~(within if rtol or atol else same)).sum()),
        float(apart.max(initial=0)),
        norm(apart),
        float(cosine),
    )


def assert_are(found: Difference, wanted: Difference) -> None:
    assert found[:3] == wanted[:3]
    assert found.max_abs == pytest.approx(wanted.max_abs, rel=RELATIVE)
    assert found.l2 == pytest.approx(wanted.l2, rel=RELATIVE, abs=1e-160)  # Squares of less are nothing.
    assert math.isnan(found.cosine) == math.isnan(wanted.cosine)
    assert found.cosine == pytest.approx(wanted.cosine, rel=RELATIVE, abs=1e-14, nan_ok=True)


DTYPES = [np.dtype(name) for name in ("f2", "f4", "f8", "i1", "i2", "i4", "u1", "u2", "u4", "?", "c8", "c16")]


@st.composite
def pairs(draw):
    """Two arrays of one dtype and shape that have some values in common."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=1, max_side=9))
    # Squares are to be numbers, and tiny ones are another test's.
    elements = {} if dtype.kind in "iub" else {"max_magnitude" if dtype.kind == "c" else "max_value": 1e3}
    if dtype.kind == "f":
        elements |= {"min_value": -1e3, "allow_subnormal": False}
    values = hnp.from_dtype(dtype, **elements)
    a = draw(hnp.arrays(dtype, shape, elements=values))
    b = np.where(draw(hnp.arrays(bool, shape)), a, draw(hnp.arrays(dtype, shape, elements=values)))
    return a, b.astype(dtype).reshape(shape)


@examples
@given(pair=pairs(), rtol=st.sampled_from([0, 1e-3, 1]), atol=st.sampled_from([0, 1e-6, 1.5]), block=st.integers(1, 50))
def test_any_pair(pair, rtol, atol, block, folder):
    """Whatever values, dtype, tolerance and block size: what has changed, and by how much, is what NumPy says."""
    before, module._ELEMENTS = module._ELEMENTS, block
    try:
        assert_are(differing(*pair, folder, rtol=rtol, atol=atol), judged(*pair, rtol, atol))
    finally:
        module._ELEMENTS = before


NAN, INF = np.nan, np.inf
SPECIAL = {
    "NaN is NaN": ([NAN, 1], [NAN, 2], "f4"),
    "NaN and a number": ([NAN, 1], [0, 1], "f4"),
    "a number and NaN": ([3, 1], [NAN, 1], "f8"),
    "the same infinities": ([INF, -INF, 1], [INF, -INF, 2], "f8"),
    "other infinities": ([INF, 1], [-INF, 1], "f4"),
    "infinity and a number": ([1, 1], [INF, 1], "f4"),
    "negative zero": ([0.0, 1], [-0.0, 2], "f4"),
    "zeros": ([0, 0], [1, 0], "f4"),
    "overflow": ([1e200, 1], [-1e200, 1], "f8"),
    "largest": ([1.7e308, 1], [-1.7e308, 1], "f8"),
    "denormal": ([1e-45, 0], [2e-45, 0], "f4"),
    "complex": ([1 + 2j, 3], [1 - 2j, 3], "c8"),
    "complex NaN": ([complex(NAN, 1), 1], [complex(NAN, 2), 2], "c16"),
    "complex infinity": ([complex(INF, NAN), 1], [1, 1], "c16"),
    "bool": ([True, False], [True, True], "?"),
    "uint64": ([2**64 - 1, 5], [0, 5], "u8"),
    "opposite ends": ([-(2**63), 5], [2**63 - 1, 5], "i8"),
}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("tolerance", [(0, 0), (0.5, 0), (0, 1e6)], ids=str)
def test_special_values(name, tolerance, tmp_path):
    """A NaN is a NaN, no infinity is near to anything else, and what overflows is infinite."""
    a, b, dtype = SPECIAL[name]
    a, b = np.array(a, dtype), np.array(b, dtype)
    assert_are(differing(a, b, tmp_path, rtol=tolerance[0], atol=tolerance[1]), judged(a, b, *tolerance))


@pytest.mark.parametrize("swapped", [False, True])
def test_integers_beyond_floats(swapped, tmp_path):
    """Integers that are the same as float64 are told apart, and their difference is exact."""
    a, b = np.array([2**53, 2**62, -(2**62), 7]), np.array([2**53 + 1, 2**62 + 3, -(2**62) - 2, 7])
    a, b = (b, a) if swapped else (a, b)
    found = differing(a, b, tmp_path)
    assert found[:5] == (4, 3, 3, 3.0, math.sqrt(1 + 9 + 4))
    assert differing(a, b, tmp_path, atol=2).beyond == 1
    assert differing(a.astype(np.uint64), b.astype(np.uint64), tmp_path, atol=2).beyond == 1


def test_integers_beyond_floats_are_no_success(run, tmp_path):
    """A step counter that is off by one at 2^60 is a difference: exit code 1."""
    a, b = (bundle({"step": np.array(2**60 + n)}).write(tmp_path, f"m{n}") for n in (0, 1))
    assert run("diff", a, b).exit_code == 1


ODD = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint2", "float4_e2m1fn"]


@pytest.mark.parametrize("name", ODD)
def test_narrow_dtypes(name, tmp_path):
    """The dtypes that NumPy lacks are compared by their numbers."""
    dtype = np.dtype(getattr(ml_dtypes, name))
    a, b = np.array([0, 1, 2, 3]).astype(dtype), np.array([0, 1, 3, 1]).astype(dtype)
    assert_are(differing(a, b, tmp_path, atol=1), judged(a.astype("f8"), b.astype("f8"), 0, 1))


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "int64", "int32", "complex64", "complex128"])
def test_byte_orders_do_not_matter(name, tmp_path):
    """The least difference is found also where NumPy's type of the numbers is not the plain one, as of V1 checkpoints
    and of big-endian files: they are not compared as float32, nor complex ones without their imaginary parts.
    """
    least = np.spacing(np.array(1, name).real) if np.dtype(name).kind in "fc" else np.array(1, name)
    one = np.full(3, 2**40 + 1 if name == "int64" else 1, name)
    other = one.copy()
    other[1] += least * 1j if one.dtype.kind == "c" else least
    for order in "<>":
        ordered = [array.astype(array.dtype.newbyteorder(order)) for array in (one, other)]
        a, b = (ckpttool.from_arrays({"w": array}) for array in ordered)
        assert compare(a, b).differences["w"][:4] == (3, 1, 1, float(least))
        for path, checkpoint in {"a": a, "b": b}.items():
            write_tensor_slices(checkpoint, tmp_path / path, force=True)
        np.savez(tmp_path / "a.npz", w=ordered[0])
        np.savez(tmp_path / "b.npz", w=ordered[1])
        for suffix in ("", ".npz"):
            a, b = (ckpttool.open_checkpoint(tmp_path / f"{path}{suffix}") for path in "ab")
            assert compare(a, b).differences["w"][:4] == (3, 1, 1, float(least))


@pytest.mark.parametrize("dtypes", [("f4", "f8"), ("f4", "i4"), ("f8", "c8"), ("?", "u1")], ids=str)
def test_other_dtypes(dtypes, run, tmp_path):
    """Variables of different dtypes are compared by their values, and the dtype is a difference."""
    a, b = (np.array([0, 1, 5]).astype(bool).astype(dtype) for dtype in dtypes)
    assert differing(a, b, tmp_path)[:5] == (3, 0, 0, 0, 0)
    b[1] = 0
    assert differing(a, b, tmp_path)[:4] == (3, 1, 1, 1)
    result = run("diff", tmp_path / "a", tmp_path / "b")
    assert (result.exit_code, "other dtype" in result.stdout) == (1, True)


def test_strings(run, tmp_path):
    """Strings are the same or not: they have no distance."""
    a, b = strings(b"a", b"\xff", b""), strings(b"a", b"\xfe", b"")
    assert differing(a, a.copy(), tmp_path).changed == 0
    found = differing(a, b, tmp_path, atol=9)
    assert found[:3] == (3, 1, 1)
    assert all(map(math.isnan, found[3:]))
    [row] = json.loads(run("diff", tmp_path / "a", tmp_path / "b", "--json").stdout)["values"]
    assert (row["max_abs"], row["l2"], row["cosine"]) == (None, None, None)


def test_no_cosine_without_a_direction(tmp_path):
    """Beside a vector of zeros, or one with a NaN in it, there is no angle."""
    one = np.ones(3, np.float32)
    assert math.isnan(differing(one, np.zeros(3, np.float32), tmp_path).cosine)
    assert math.isnan(differing(one, np.array([1, 2, NAN], np.float32), tmp_path).cosine)
    assert differing(one, -one, tmp_path).cosine == -1


def test_blocks_and_slices_do_not_matter(tmp_path, monkeypatch):
    """Partitioned or whole, in whatever blocks: the same differences, also where only the last block has any."""
    random = np.random.default_rng(6)
    a = random.standard_normal((100, 137)).astype(np.float32)
    b, c = a + random.standard_normal((100, 137)).astype(np.float32) / 1000, a.copy()
    c[-1, -1] += 1
    slices = {"w": [((0, 30), (0, -1)), ((30, 70), (0, 20)), ((30, 70), (20, 117))]}
    sliced = ckpttool.open_checkpoint(bundle({"w": a}, slices=slices, shards=2).write(tmp_path, "sliced"))["w"]
    for other in (a, b, c):
        whole = ckpttool.open_checkpoint(bundle({"w": other}).write(tmp_path, "whole"))["w"]
        wanted = judged(a, other, 0, 1e-3)
        for elements in (7, 136, 9000, 1 << 18):
            monkeypatch.setattr(module, "_ELEMENTS", elements)
            assert_are(difference(sliced, whole, atol=1e-3), wanted)


# Checkpoints


def opened(folder, name: str, **arrays: np.ndarray):
    return ckpttool.open_checkpoint(bundle(arrays).write(folder, name))


def test_names(tmp_path):
    """What only one has, what has another shape or dtype, and what has changed, each once."""
    ramp = np.arange(6.0)
    a = opened(tmp_path, "a", same=ramp, changed=ramp, gone=ramp + 1, shape=ramp, dtype=ramp)
    b = opened(tmp_path, "b", same=ramp, changed=-ramp, new=ramp, shape=ramp[:5], dtype=ramp.astype("f4"))
    found = compare(a, b)
    assert (found.only_a, found.only_b, found.renamed, found.unlike) == (["gone"], ["new"], {}, ["dtype", "shape"])
    assert {name: each.changed for name, each in found.differences.items()} == {"changed": 5, "dtype": 0, "same": 0}


def test_renames(tmp_path):
    """A variable under another name is found by its values, if no other one has them on either side."""
    random = np.random.default_rng(6)
    unique, twin, other = random.standard_normal((3, 4, 5)).astype(np.float32)
    one_hot = np.zeros(300_000)
    one_hot[1] = 1
    words = strings(b"x", b"y")
    a = opened(tmp_path, "a", u=unique, t1=twin, t2=twin, w1=twin[0], text=words, r=other, hot=one_hot)
    b = opened(tmp_path, "b", v=unique, t3=twin, t4=twin, w2=twin[0], w3=twin[0], w=words, r2=other.T, o=one_hot)
    found = compare(a, b)
    assert found.renamed == {"hot": "o", "u": "v", "text": "w"}
    assert (found.only_a, found.only_b) == (["r", "t1", "t2", "w1"], ["r2", "t3", "t4", "w2", "w3"])


def test_renames_are_differences(run, tmp_path):
    """Checkpoints that have all values in common, one under another name, are not the same: exit code 1."""
    ramp = np.arange(4.0)
    a, b = bundle({"w": ramp}).write(tmp_path, "a"), bundle({"v": ramp}).write(tmp_path, "b")
    result = run("diff", a, b)
    assert (result.exit_code, len(result.stdout.splitlines())) == (1, 2)
    assert result.stdout.splitlines()[1].split("\t")[:2] == ["w", "renamed"]


def test_a_status_is_said_where_there_are_two(run, tmp_path):
    """A table of values that have all changed does not say so in each row; of others it says which are tolerated."""
    a, b = bundle({"w": np.zeros(3), "v": np.zeros(3)}), bundle({"w": np.full(3, 0.5), "v": np.full(3, 0.1)})
    command = ["diff", a.write(tmp_path, "a"), b.write(tmp_path, "b"), "--format", "table"]
    assert run(*command).stdout.splitlines()[2].split()[:3] == ["name", "changed", "of"]
    tolerant = run(*command, "--atol", "0.2").stdout
    assert [line.split()[:3] for line in tolerant.splitlines()[4:6]] == [
        ["w", "changed", "3"],
        ["v", "within", "tolerance"],
    ]


def test_the_end_of_keys_is_said_once(run, tmp_path):
    """A table of TensorFlow 2's variables is without the end that all keys have, as that of vars; TSV has it."""
    end, ramp = "/.ATTRIBUTES/VARIABLE_VALUE", np.arange(4.0)
    a = bundle({f"model/w{end}": ramp, f"model/b{end}": ramp[:3]}).write(tmp_path, "a")
    b = bundle({f"layer/w{end}": ramp, f"model/b{end}": ramp[:2]}).write(tmp_path, "b")
    table = run("diff", a, b, "--format", "table").stdout
    assert [line.split()[:2] for line in table.splitlines()[4:6]] == [["model/w", "renamed"], ["model/b", "other"]]
    assert "layer/w\n" in table
    # The dtypes are the same, and one shape is not.
    assert table.splitlines()[2].split("   ")[-3:] == ["shape A", "shape B", "name B"]
    assert table.count(end) == table.count(f"… names without {end} (--all)\n") == 1
    assert run("diff", a, b, "--format", "table", "--all").stdout.count("VARIABLE_VALUE") == 3
    assert run("diff", a, b).stdout.count(end) == 3


CONSTANT = {
    "zeros": np.zeros((3, 4), np.float32),
    "ones": np.ones(7),
    "scalar": np.array(0.9),
    "nothing": np.zeros((0, 3)),
    "the same string": strings(b"x", b"x"),
    "no string": strings(),
    "large zeros": np.zeros(300_000),
}


@pytest.mark.parametrize("name", CONSTANT)
def test_no_guessing(name, tmp_path):
    """Values that are all the same prove nothing: such variables are not taken for renamed."""
    a, b = opened(tmp_path, "a", old=CONSTANT[name]), opened(tmp_path, "b", new=CONSTANT[name])
    found = compare(a, b)
    assert (found.only_a, found.only_b, found.renamed) == (["old"], ["new"], {})


@pytest.mark.parametrize(
    "prefix", ["conv/model", "dtypes/model", "strings/model", "partitioned/model", "objects/model-1"]
)
def test_formats_do_not_matter(prefix, run, tmp_path):
    """A checkpoint is the same as itself in every other format, but for what the format can't hold."""
    source = ckpttool.open_checkpoint(FIXTURES / prefix)
    writers = {
        "w.h5": ckpttool.write_hdf5,
        "w.safetensors": ckpttool.write_safetensors,
        "w.npz": ckpttool.write_npz,
        "npy": ckpttool.write_npy,
        "v2": ckpttool.write_bundle,
        "v1": write_tensor_slices,
    }
    for name, write in writers.items():
        plan = write(source, tmp_path / name)
        left_out = {planned.variable.name for planned in plan if planned.problem}
        found = compare(source, ckpttool.open_checkpoint(tmp_path / name))
        assert set(found.only_a) == left_out, name
        assert (found.only_b, found.unlike) == ([], []), name
        assert not any(each.changed for each in found.differences.values())
        if not left_out:
            result = run("diff", FIXTURES / prefix, tmp_path / name)
            assert (result.exit_code, result.stdout) == (0, ""), name
            assert result.stderr.endswith("no differences\n")


def test_partitioned_and_whole(run, tmp_path):
    """Partitioned variables are the same as the whole ones that NumPy's archive has."""
    checkpoint = ckpttool.open_checkpoint(FIXTURES / "partitioned" / "slices")
    cut = ["cube", "half", "rows"]
    assert all(len(checkpoint[name].slices) > 1 for name in cut)
    np.savez(tmp_path / "whole.npz", **{name: checkpoint[name].numpy() for name in cut})
    chosen = [option for name in cut for option in ("--include", name)]
    assert run("diff", checkpoint.path, tmp_path / "whole.npz", *chosen).exit_code == 0


# The command


def test_exit_codes(run, tmp_path):
    """0: the same, or within the tolerance. 1: different. 2: wrong usage. 3: not there. 4: damaged."""
    ramp = np.arange(4.0)
    paths = [bundle({"w": w}).write(tmp_path, f"m{n}") for n, w in enumerate((ramp, ramp + 1e-7, ramp + 1, ramp[:3]))]
    damaged = bundle({"w": ramp}).change("w", crc32c=1).write(tmp_path, "damaged")
    for arguments, code in (
        ([paths[0], paths[0]], 0),
        ([paths[0], paths[1]], 1),
        ([paths[0], paths[1], "--atol", "1e-6"], 0),
        ([paths[0], paths[2], "--atol", "1e-6"], 1),
        ([paths[0], paths[2], "--rtol", "1"], 0),
        ([paths[0], paths[3]], 1),
        ([paths[0], paths[2], "--structure"], 0),
        ([paths[0], paths[3], "--structure"], 1),
        ([paths[0], paths[1], "--include", "v"], 1),
        ([paths[0]], 2),
        ([paths[0], paths[1], "--atol", "-1"], 2),
        ([paths[0], paths[1], "--structure", "--rtol", "1"], 2),
        ([paths[0], paths[1], "--graphs"], 3),
        ([paths[0], tmp_path / "none"], 3),
        ([paths[0], damaged], 4),
        ([damaged, damaged], 4),
        ([damaged, damaged, "--structure"], 0),
    ):
        assert run("diff", *arguments).exit_code == code, arguments


def test_warnings_are_said(run, tmp_path):
    """What could not be listed is said, though what was is the same."""
    np.savez(tmp_path / "a.npz", w=np.ones(3), odd=np.zeros(2, "V2"))
    np.savez(tmp_path / "b.npz", w=np.ones(3))
    result = run("diff", tmp_path / "a.npz", tmp_path / "b.npz")
    assert result.exit_code == 0
    assert "odd" in result.stderr


def test_names_do_not_decide(run, tmp_path):
    """A variable that is named as a status is, is not taken for it."""
    a, b = bundle({"within tolerance": np.ones(3)}), bundle({"w": np.ones(3)})
    assert run("diff", a.write(tmp_path, "a"), b.write(tmp_path, "b")).exit_code == 1


@pytest.mark.parametrize("where", ["first block", "last block", "strings", "renamed", "crc"])
def test_damage(where, run, tmp_path):
    """Damage in either is an error that names the variable, never a difference, and never none."""
    arrays = {"sound": np.arange(9.0), "w": np.arange(600_000.0), "s": strings(b"abc", b"de")}
    good = bundle(arrays)
    prefix = good.write(tmp_path, "good")
    name = {"strings": "s", "renamed": "old"}.get(where, "w")
    bad = bundle({("old" if key == "w" and where == "renamed" else key): value for key, value in arrays.items()})
    data = bytearray(bad.shards[0])
    place = {"first block": 100, "strings": -1, "renamed": 100, "crc": 0}.get(where, 600_000 * 8)
    if where == "crc":
        bad.change("w", crc32c=1)
    else:
        offset = 72 if where in ("first block", "renamed") else 0
        data[place + offset] ^= 1
        bad.shards[0] = bytes(data)
    damaged = bad.write(tmp_path, "bad")
    for pair in ((prefix, damaged), (damaged, prefix), (damaged, damaged)):
        result = run("diff", *pair)
        if where == "renamed" and pair == (damaged, damaged):
            name = "old"
        assert (result.exit_code, result.stdout) == (4, ""), pair
        assert f"'{name}'" in result.stderr
        assert "no differences" not in result.stderr


def test_structure_reads_no_values(run, tmp_path):
    """--structure needs no data file."""
    made = bundle({"w": np.arange(4.0), "v": np.zeros(3)})
    made.shards[0] = None
    prefix = made.write(tmp_path)
    assert run("diff", prefix, prefix, "--structure").exit_code == 0
    other = bundle({"w": np.arange(4.0)}).write(tmp_path, "other")
    assert run("diff", prefix, other, "--structure").exit_code == 1
    assert run("diff", prefix, other).exit_code in (3, 4)


def test_json(run, tmp_path):
    """The document has structure and values, and says whether there is a difference."""
    a = bundle({"w": np.array([1.0, 2]), "old": np.zeros(3), "n": np.array([1.0, np.inf])}).write(tmp_path, "a")
    b = bundle({"w": np.array([1.0, 4]), "older": np.zeros(3), "n": np.array([1.0, 2])}).write(tmp_path, "b")
    document = json.loads(run("diff", a, b, "--json").stdout)
    assert {key: document[key] for key in ("schema", "a", "b", "different")} == {
        "schema": "ckpttool.diff/1",
        "a": a,
        "b": b,
        "different": True,
    }
    assert [(row["name"], row["difference"], row["near_name"]) for row in document["structure"]] == [
        ("old", "only in A", "older"),
        ("older", "only in B", "old"),
    ]
    assert document["values"][0]["name"] == "n"  # What differs most comes first.
    assert (document["values"][0]["max_abs"], document["values"][0]["cosine"]) == ("inf", None)
    assert document["values"][1] == {
        "name": "w",
        "status": "changed",
        "changed": 1,
        "of": 2,
        "max_abs": 2.0,
        "l2": 2.0,
        "cosine": pytest.approx(9 / math.sqrt(5 * 17)),
    }
    same = json.loads(run("diff", a, a, "--json").stdout)
    assert (same["different"], same["structure"], same["values"]) == (False, [], [])


def test_globs_that_match_nothing_are_said(run, tmp_path):
    """Without what a mistyped one was to choose there may be no differences; one that matches in one side is none."""
    a, b = FIXTURES / "conv" / "model", tmp_path / "b"
    ckpttool.write_bundle(ckpttool.rename(ckpttool.open_checkpoint(a), {"dense/bias": "other/bias"}), b)
    options = [
        "-i",
        "conv/**",
        "-i",
        "dense/bias",
        "-i",
        "other/*",
        "-i",
        "cnov/**",
        "-x",
        "dense/bias",
        "-x",
        "other/*",
    ]
    result = run("diff", a, b, *options)
    assert (result.exit_code, result.stderr) == (0, "note: 'cnov/**' matches no name\nno differences\n")
    assert run("diff", a, b, *options, "--quiet").stderr == ""


def test_near_names_take_bounded_time():
    """Thousands of names that are alike, or as long as a file, are not compared each with each."""
    near = NearNames()
    names = [f"model/layer_{number}/attention/kernel" for number in range(3000)]
    with time_limit(5):
        assert near.of("model/layer_77/attention/kernal", names) == ["model/layer_77/attention/kernel"]
        for name in names:
            near.of(name + "x", names)
        assert near.of("x" * 1_000_000, ["x" * 999_999]) == []
        assert NearNames().of("wxyz", ["x" * 999_999, "wxya"]) == ["wxya"]


def test_memory(tmp_path):
    """Two variables of 64 MB are compared in less than 32 MB, whether they are the same or not."""
    ones = np.ones(16 << 20, np.float32)
    a, b = opened(tmp_path, "a", w=ones, small=ones[:9]), opened(tmp_path, "b", w=2 * ones, small=ones[:9] + 1)
    difference(a["small"], b["small"])  # Imports.
    tracemalloc.start()
    try:
        assert difference(a["w"], b["w"]).changed == ones.size
        assert difference(a["w"], a["w"]).changed == 0
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_damage_found_late(tmp_path):
    """A checksum that fails after the last block is no equality, though all bytes are the same."""
    made = bundle({"w": np.arange(100.0)})
    one, other = made.open(tmp_path), bundle({"w": np.arange(100.0)}).change("w", crc32c=1)
    with pytest.raises(CorruptionError, match="Checksum"):
        difference(one["w"], ckpttool.open_checkpoint(other.write(tmp_path, "other"))["w"])


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_numbers_with_a_nan_are_compared_by_their_parts(dtype):
    """Where one part is NaN in both, the other part still tells them apart; NaN in other parts are no match."""
    one = np.array([complex(1, np.nan), complex(np.nan, 1), complex(np.nan, np.nan), complex(1, np.nan)], dtype)
    other = np.array([complex(2, np.nan), complex(1, np.nan), complex(np.nan, np.nan), complex(1, np.nan)], dtype)
    a, b = ckpttool.from_arrays({"c": one})["c"], ckpttool.from_arrays({"c": other})["c"]
    found = difference(a, b)
    assert (found.changed, found.max_abs) == (2, np.inf)
    assert difference(a, a).changed == 0
