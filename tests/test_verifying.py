"""`verify`: what is wrong is found, named and explained; what is sound is not called odd. TensorFlow is the judge."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import h5py
import numpy as np
import pytest
import test_damage as damage
import test_tensor_slices as tensor_slices
from bundles import bundle, field, header, strings, table, table_of, with_trailer
from conftest import CORPUS, FIXTURES, corpus_files, needs_corpus
from privileges import unprivileged

import ckpttool
from ckpttool import storage
from ckpttool.errors import CheckpointError, NotSupportedError
from ckpttool.formats.bundle import index_path, shard_path
from ckpttool.formats.bundle.reading import read_bundle
from ckpttool.formats.listing import is_table
from ckpttool.formats.locate import locate
from ckpttool.formats.opening import open_checkpoint
from ckpttool.formats.records.shapes import encode_slice_key
from ckpttool.formats.verifying import Verified, strict_findings, verify_values
from ckpttool.formats.verifying import data as data_checks
from ckpttool.proto import message_class
from ckpttool.wire.crc32c import combine, crc32c
from ckpttool.wire.sstable import FOOTER_SIZE, Footer, Table
from ckpttool.wire.sstable.scanning import scan


def verified(path: object) -> Verified:
    """As the command does it."""
    faults: list[CheckpointError] = []
    return verify_values(open_checkpoint(locate(str(path)), faults=faults), faults)


def copied(fixture: str, directory: Path) -> Path:
    """A fixture's files; its prefix."""
    folder, _, stem = fixture.partition("/")
    for path in (FIXTURES / folder).glob(f"{stem or 'model'}.*"):
        shutil.copy(path, directory)
    return directory / (stem or "model")


def kinds(found: Verified) -> set[str]:
    return {finding.kind for finding in found.findings}


def data_file(prefix: object, number: int = 0, count: int = 1) -> Path:
    return Path(shard_path(str(prefix), number, count))


# What is listed past damage


def assert_readable(found: Verified) -> None:
    """What is whole can be read, and what is damaged answers with an error."""
    for name, variable in found.checkpoint.items():
        if name in found.damaged:
            with pytest.raises(CheckpointError):
                variable.numpy()
        else:
            assert variable.numpy().shape == variable.shape


@pytest.mark.parametrize("name", [*damage.REFUSED, *damage.BAD_SLICES])
def test_what_is_listed_past_damage(name: str, tmp_path: Path) -> None:
    """Whatever is wrong with an entry or a slice, what is listed all the same is whole, or is said to be damaged."""
    make = {**damage.REFUSED, **damage.BAD_SLICES}[name][0]
    try:
        found = verified(make().write(tmp_path))
    except CheckpointError:
        return  # Nothing can be listed.
    assert found.findings
    assert_readable(found)


@pytest.mark.parametrize("name", tensor_slices.UNSOUND)
def test_what_is_listed_past_damage_of_v1(name: str, tmp_path: Path) -> None:
    """Of a V1 checkpoint whose only variable is unsound nothing is whole."""
    files = tensor_slices.UNSOUND[name][2]
    for number, records in enumerate(files):
        (tmp_path / f"model-{number:05}-of-{len(files):05}").write_bytes(table_of(sorted(records.items())))
    try:
        found = verified(tmp_path / "model")
    except CheckpointError:
        return
    assert found.findings
    assert not found.whole


# What is sound


BUNDLES = [path.with_suffix("") for path in [*sorted(FIXTURES.rglob("*.index")), *corpus_files("*.index")]]
BUNDLES = [path for path in BUNDLES if not Path(index_path(str(path))).read_bytes().startswith(b"version https")]
TABLES = [
    path
    for path in corpus_files("*")
    if path.is_file() and path.suffix not in (".index", ".meta", ".pb", ".h5") and is_table(str(path))
]


def name_of(path: Path) -> str:
    return "/".join(path.parts[-4:])


@pytest.mark.parametrize("prefix", BUNDLES, ids=name_of)
def test_what_tensorflow_wrote_is_sound(run, prefix):
    """A checkpoint that has all of its files has nothing wrong with it, and by --strict nothing odd."""
    if open_checkpoint(prefix).warnings:
        assert kinds(verified(prefix)) == {"missing"}
        return
    result = run("verify", prefix, "--strict", "--json")
    assert (result.exit_code, json.loads(result.stdout)["findings"]) == (0, [])


@needs_corpus
@pytest.mark.parametrize("path", TABLES, ids=name_of)
def test_v1_checkpoints_are_sound(run, path):
    """So it is with those of the format V1."""
    result = run("verify", path, "--v1", "--strict", "--json")
    assert (result.exit_code, json.loads(result.stdout)["findings"]) == (0, [])


def test_there_are_such():
    """The corpus, where it is, has many of both."""
    assert len(BUNDLES) > (60 if CORPUS.is_dir() else 10)
    assert len(TABLES) > (5 if CORPUS.is_dir() else -1)


# Every byte of the data


SMALL = [
    "linear",
    "empty",
    "sharded/merged",
    "names",
    "strings",
    "partitioned",
    "partitioned/slices",
    "slots",
    "dtypes",
]


@pytest.mark.parametrize("fixture", SMALL)
def test_every_byte_of_the_data(fixture, tmp_path):
    """Whichever byte of a data file is another, the variables that it belongs to are damaged, and no other."""
    _every_byte(copied(fixture, tmp_path), 3)


@pytest.mark.slow
@pytest.mark.parametrize("fixture", [*SMALL, "conv", "many", "objects/model-1", "recurrent", "sharded"])
def test_every_byte_of_all_data(fixture, tmp_path):
    """The same of every byte."""
    _every_byte(copied(fixture, tmp_path), 1, 0x01)


def _every_byte(prefix: Path, step: int, flip: int = 0x10) -> None:
    checkpoint = read_bundle(str(prefix))
    spans = [(v.name, piece.data) for v in checkpoint.values() for piece in v.slices]
    for path in map(Path, checkpoint.files[1:]):
        data = path.read_bytes()
        for position in range(0, len(data), step):
            path.write_bytes(data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :])
            owners = {n for n, s in spans if s.path == str(path) and s.offset <= position < s.offset + s.nbytes}
            found = verify_values(checkpoint)
            assert owners == found.damaged.keys() == {finding.variable for finding in found.findings}
            assert kinds(found) == {"data"}
        path.write_bytes(data)


@pytest.mark.parametrize("fixture", SMALL)
def test_every_truncation_of_the_data(fixture, tmp_path):
    """Cut off anywhere, the variables that need more are lost, and the others are whole; the rest is counted."""
    prefix = copied(fixture, tmp_path)
    checkpoint = read_bundle(str(prefix))
    path = Path(checkpoint.files[-1])
    data = path.read_bytes()
    spans = [(v.name, p.data) for v in checkpoint.values() for p in v.slices if p.data.path == str(path)]
    for size in range(0, len(data), 1 if len(data) < 300 else 7):
        path.write_bytes(data[:size])
        found = verify_values(checkpoint)
        assert found.damaged.keys() == {name for name, span in spans if span.offset + span.nbytes > size}
        [finding] = found.findings
        assert (finding.kind, finding.offset) == ("truncated", size)
        assert f"{len(found.whole)} of {len(checkpoint)} variables are whole" in found.causes[0]


@pytest.mark.tensorflow
def test_what_tensorflow_refuses_is_reported(tf, tmp_path):
    """Whichever byte of data or index is another: TensorFlow reads what it read before, or `verify` says something."""
    prefix = copied("many", tmp_path)
    reader = tf.train.load_checkpoint(str(prefix))
    before = {name: reader.get_tensor(name).tobytes() for name in reader.get_variable_to_shape_map()}
    for path in (data_file(prefix), Path(index_path(str(prefix)))):
        data = path.read_bytes()
        # An index that it can't read at all, TensorFlow may end the process for.
        for position in range(0, len(data), 23) if path.suffix != ".index" else range(len(data) - 110, len(data)):
            path.write_bytes(data[:position] + bytes([data[position] ^ 0x20]) + data[position + 1 :])
            try:
                findings = verified(prefix).findings
            except CheckpointError:
                continue
            if not findings:
                reader = tf.train.load_checkpoint(str(prefix))
                assert {name: reader.get_tensor(name).tobytes() for name in before} == before
        path.write_bytes(data)


# Every byte of the index


@pytest.mark.parametrize("fixture", ["linear", "sharded/merged", "partitioned/slices"])
def test_every_byte_of_the_index(fixture, tmp_path):
    """A changed byte is reported, but for those that no reader looks at; by --strict each is."""
    _every_byte_of_the_index(copied(fixture, tmp_path), 0x01)


@pytest.mark.slow
@pytest.mark.parametrize("fixture", ["conv", "dtypes", "names", "strings", "objects/model-1", "slots", "many"])
def test_every_byte_of_all_indexes(fixture, tmp_path):
    """The same of more of them."""
    _every_byte_of_the_index(copied(fixture, tmp_path), 0x80)


@pytest.mark.slow
@pytest.mark.parametrize("flip", [0x02, 0x08, 0x40, 0xFF])
def test_every_change_of_the_index(flip, tmp_path):
    """The same with other changes of each byte."""
    _every_byte_of_the_index(copied("partitioned/slices", tmp_path), flip)


def _every_byte_of_the_index(prefix: Path, flip: int) -> None:
    path = Path(index_path(str(prefix)))
    index, unseen = path.read_bytes(), set()
    for position in range(len(index)):
        path.write_bytes(index[:position] + bytes([index[position] ^ flip]) + index[position + 1 :])
        try:
            found = verified(prefix)
        except CheckpointError:
            continue
        if not found.findings:
            unseen.add(position)
            assert strict_findings(found.checkpoint), position
    footer = Footer.decode(index[-FOOTER_SIZE:])
    meta, length = footer.metaindex_handle, len(index)
    nobody_reads = {*range(meta.offset, meta.offset + meta.size + 5), *range(length - FOOTER_SIZE, length - 8)}
    assert unseen <= nobody_reads
    assert unseen >= {*range(meta.offset, meta.offset + meta.size + 5)}


@pytest.mark.parametrize("fixture", ["linear", "partitioned/slices", "names"])
def test_every_truncation_of_the_index(fixture, tmp_path):
    """An index cut off anywhere is reported, or nothing can be listed; what it still says is right."""
    prefix = copied(fixture, tmp_path)
    path = Path(index_path(str(prefix)))
    index, whole = path.read_bytes(), {n: (v.dtype, v.shape) for n, v in read_bundle(str(prefix)).items()}
    listed = []
    for size in range(len(index)):
        path.write_bytes(index[:size])
        try:
            found = verified(prefix)
        except CheckpointError:
            continue
        assert "index" in kinds(found)
        assert {name: (v.dtype, v.shape) for name, v in found.checkpoint.items()}.items() <= whole.items()
        listed.append(len(found.whole))
    assert listed == sorted(listed)
    assert listed[-1] == len(whole)


def test_an_index_that_has_lost_its_end(run, tmp_path):
    """All variables of an index without its last bytes are found, the cause is said, and TensorFlow reads none."""
    prefix = copied("conv", tmp_path)
    path = Path(index_path(str(prefix)))
    path.write_bytes(path.read_bytes()[:-60])
    result = run("verify", prefix)
    assert result.exit_code == 1
    assert "model.index ends after 498 bytes, without its own index: 14 of 14 variables are whole" in result.stderr


def test_what_an_index_has_lost_is_not_looked_for(run, tmp_path):
    """Of what only the graph still names, no near names are suggested: it was not called otherwise."""
    prefix = copied("conv", tmp_path)
    path = Path(index_path(str(prefix)))
    path.write_bytes(path.read_bytes()[:300])
    result = run("verify", prefix, "--json")
    findings = json.loads(result.stdout)["findings"]
    lost = {finding["variable"]: finding["what"] for finding in findings if finding["kind"] == "graph"}
    assert set(lost.values()) == {"the graph restores it, and what is left of the index does not list it"}
    assert len(lost) + json.loads(result.stdout)["variables"] == 14


# Patterns


def steps(directory: Path, count: int = 10, **options: object) -> list[Path]:
    """Checkpoints of one model at two steps."""
    made = []
    for step in (1, 2):
        random = np.random.default_rng(step)
        arrays = {f"v{i}": random.normal(size=5 + i).astype(np.float32) for i in range(count)}
        arrays |= {f"zero{i}": np.zeros(3, np.float32) for i in range(count // 8)}
        made.append(Path(bundle(arrays, **options).write(directory, f"model-{step}")))
    return made


def test_index_and_data_of_two_steps(tmp_path):
    """Data of another step beside are known for what they are, though a value that never changed fits."""
    first, second = steps(tmp_path)
    shutil.copy(data_file(second), data_file(first))
    found = verified(first)
    assert len(found.findings) == 10
    assert found.whole == ["zero0"]
    [cause] = found.causes
    assert "nearly all values in" in cause
    assert "index and data are not of one checkpoint; the data are those of" in cause
    assert "model-2.data-00000-of-00001, by" in cause


def test_index_and_data_of_two_steps_alone(tmp_path):
    """Without the index that the data belong to, it may as well be that the whole file is damaged."""
    first, second = steps(tmp_path, 6)
    shutil.move(data_file(second), data_file(first))
    Path(index_path(str(second))).unlink()
    [cause] = verified(first).causes
    assert cause.startswith("all values in ")
    assert cause.endswith("or the whole file is damaged")


def test_one_shard_of_another_step(tmp_path):
    """Only one of three data files is of another step: it is named, and the values in the others are whole."""
    first, second = steps(tmp_path, 12, shards=3)
    shutil.copy(data_file(second, 1, 3), data_file(first, 1, 3))
    found = verified(first)
    assert {finding.path for finding in found.findings} == {str(data_file(first, 1, 3))}
    [cause] = found.causes
    assert "the data are those of" in cause
    assert "model-2.data-00001-of-00003" in cause


def test_shards_in_each_others_place(tmp_path):
    """Data files that were given each other's numbers are known by what is in them."""
    first, _ = steps(tmp_path, 12, shards=2)
    one, two = data_file(first, 0, 2), data_file(first, 1, 2)
    shutil.move(one, tmp_path / "x")
    shutil.move(two, one)
    shutil.move(tmp_path / "x", two)
    causes = verified(first).causes  # One is shorter than the other should be.
    assert [cause.partition("the data are those of ")[2].partition(",")[0] for cause in causes] == [str(two), str(one)]


@pytest.mark.parametrize("damaged", [b"?" * 8, b"?"])
def test_many_damaged_shards(tmp_path, monkeypatch, damaged):
    """Whose they are is found out without checking each against every other file."""
    made = bundle({f"w{i:03}": np.full(2, i, np.float32) for i in range(200)}, shards=200)
    made.shards = [damaged if number % 2 else data for number, data in enumerate(made.shards)]
    made.shards[0], made.shards[2] = made.shards[2], made.shards[0]
    prefix, opened = made.write(tmp_path), []
    checksums = storage.checksums
    monkeypatch.setattr(storage, "checksums", lambda path: opened.append(path) or checksums(path))
    owned = [cause for cause in verified(prefix).causes if "the data are those of" in cause]
    assert [cause.count(shard_path(prefix, number, 200)) for cause, number in zip(owned, (2, 0), strict=True)] == [1, 1]
    assert len(opened) <= 4 * 200


def test_a_shorter_file_of_another_model(tmp_path):
    """Data that are too short to hold anything, and are whole by another index, are that checkpoint's."""
    prefix = Path(bundle({"w": np.arange(100.0)}).write(tmp_path, "large"))
    other = Path(bundle({"a": np.arange(5.0), "b": np.ones(4)}).write(tmp_path, "small"))
    shutil.copy(data_file(other), data_file(prefix))
    [cause] = verified(prefix).causes
    assert "have other checksums, or are not there: index and data are not of one checkpoint; the data are" in cause


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (1024, "fetch it again"),
        (8192, "that is 2^13: a limit of what copied it"),
        (12288, "a multiple of 4,096: a copy or a download that stopped halfway"),
        (9000, "fetch it again"),
    ],
)
def test_where_a_file_ends(size, said, tmp_path):
    """The number of bytes that are left says how they were lost."""
    prefix = Path(bundle({f"v{i}": np.arange(500.0) + i for i in range(10)}).write(tmp_path))
    data = data_file(prefix)
    data.write_bytes(data.read_bytes()[:size])
    [cause] = verified(prefix).causes
    assert cause.endswith(f"ends after {size:,} bytes: {size // 4000} of 10 variables are whole; {said}")


def test_space_that_was_never_written(tmp_path):
    """Zeros from a byte on are space that was reserved."""
    prefix = Path(bundle({f"v{i}": np.arange(500.0) + 1 for i in range(10)}).write(tmp_path))
    data = data_file(prefix)
    data.write_bytes(data.read_bytes()[:20_000].ljust(40_000, b"\0"))
    [cause] = verified(prefix).causes
    assert "5 of 10 stored tensors in" in cause
    assert "all from byte 20,000 on, and it ends in zeros: space that was never written" in cause


def test_one_variable(tmp_path):
    """One that is damaged alone is named."""
    prefix = copied("conv", tmp_path)
    data = bytearray(data_file(prefix).read_bytes())
    data[500] ^= 1
    data_file(prefix).write_bytes(data)
    [cause] = verified(prefix).causes
    assert cause.startswith("one stored tensor of 14 is damaged, and no other: ")


@pytest.mark.parametrize("dtype", [0, 20, 34, 101])
def test_a_dtype_without_values(dtype, tmp_path):
    """What no reader can make values of is not whole, though its bytes have their checksum; the data are not blamed."""
    prefix = bundle({"a": np.ones(3), "b": np.ones(2)}).change("b", dtype=dtype).write(tmp_path)
    found = verified(prefix)
    assert [(finding.kind, finding.variable) for finding in found.findings] == [("data", "b")]
    assert found.findings[0].what.endswith("can't be decoded")
    assert (found.whole, found.causes) == (["a"], [])


def test_strings_among_others(tmp_path):
    """Strings that are damaged are where they are stored, like numbers; what is damaged is between the two."""
    arrays = {"a": np.arange(2.0), "b": np.ones(2), "c": np.ones(3), "s": strings(b"abc", b"de"), "z": np.ones(1)}
    made = bundle({**arrays, **{f"w{i}": np.ones(1) for i in range(20)}})
    made.shards = [(made.shards[0] or b"").replace(b"abc", b"abd")]
    made.change("c", crc32c=1)
    found = verified(made.write(tmp_path))
    assert [(finding.variable, finding.offset) for finding in found.findings] == [("c", 32), ("s", 56)]
    assert found.causes[0].endswith(
        "2 of 25 stored tensors in " + f"{data_file(tmp_path / 'model')} are damaged, between byte 32 and byte 67"
    )


def test_a_missing_shard(tmp_path):
    """What lies in the others is whole, and all that is lost is counted."""
    first, _ = steps(tmp_path, 12, shards=3)
    data_file(first, 1, 3).unlink()
    found = verified(first)
    assert kinds(found) == {"missing"}
    assert [cause.rpartition("/")[2] for cause in found.causes] == [
        "model-1.data-00001-of-00003 is missing: 9 of 13 variables are whole; fetch it too"
    ]


def test_an_empty_file(tmp_path):
    """A data file without a byte is said to be empty."""
    prefix = copied("linear", tmp_path)
    data_file(prefix).write_bytes(b"")
    assert "is empty: 0 of 2 variables are whole" in verified(prefix).causes[0]


@pytest.mark.parametrize("name", ["model.data", "model (1).data-00000-of-00001", "Model.data-00000-of-00001"])
def test_data_of_another_name(tmp_path, name):
    """Data that a download or another system named otherwise are found by their checksums."""
    prefix = copied("conv", tmp_path)
    data_file(prefix).rename(tmp_path / name)
    assert verified(prefix).causes[0].endswith(f"; {tmp_path / name} has these values: give it that name")
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[::-1])
    assert verified(prefix).causes[0].endswith("whole; fetch it too")


@pytest.mark.parametrize("ends", [[".part1", ".part2"], ["aa", "ab"], [".7z"]])
def test_data_in_parts(tmp_path, ends):
    """Parts of a data file, as a host's limit of sizes makes them, are told of."""
    prefix = copied("conv", tmp_path)
    names = [f"{data_file(prefix).name}{end}" for end in ends]
    for name in names:
        (tmp_path / name).write_bytes(bytes(414))
    data_file(prefix).unlink()
    are = "is" if len(names) == 1 else "are"
    assert f"; {', '.join(names)} {are} beside it, which may be it in parts" in verified(prefix).causes[0]


STAND_INS = {
    "LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:c1e4\nsize 828\n",
        "a Git LFS pointer, not the file",
    ),
    "HTML": (b"<!DOCTYPE html>" + b" " * 2000, "an HTML page, as a failed download leaves: download it again"),
}


@pytest.mark.parametrize(("data", "said"), STAND_INS.values(), ids=STAND_INS)
def test_what_stands_in_for_the_data(run, tmp_path, data, said):
    """A page or a pointer under the data file's name is named, and not said to be cut short or another's data."""
    prefix = copied("conv", tmp_path)
    data_file(prefix).write_bytes(data)
    assert [cause.partition(" is ")[2][: len(said)] for cause in verified(prefix).causes] == [said]
    assert ("a Git LFS pointer" in run("vars", prefix).stderr) == ("LFS" in said)


def test_it_does_not_stop(tmp_path):
    """A missing file, a short one, damaged values and an entry that can't be are reported together."""
    arrays = {f"v{i}": np.arange(4.0) + i for i in range(12)}
    made = bundle(arrays, shards=3).change("v8", size=3)
    made.shards = [None, b"?" + (made.shards[1] or b"")[1:], (made.shards[2] or b"")[:-1]]
    found = verified(made.write(tmp_path))
    assert kinds(found) == {"index", "missing", "truncated", "data"}
    assert found.whole == ["v10", "v2", "v4", "v5", "v7"]


def test_wrong_counts_of_shards(run, tmp_path):
    """A header that counts other files than there are is reported: TensorFlow finds none."""
    made = bundle({"w": np.arange(4.0)}, num_shards=2)
    prefix = made.write(tmp_path)
    result = run("verify", prefix)
    assert result.exit_code == 1
    assert "the header counts 2 shards, the files are 1" in result.stdout


@pytest.mark.parametrize("count", [0, -1, 2**31 - 1])
def test_absurd_counts_of_shards(count, tmp_path):
    """A header that counts no files, or more than anybody has, is reported, and what is there is checked."""
    made = bundle({"w": np.arange(4.0)}, num_shards=count)
    found = verified(made.write(tmp_path))
    assert (kinds(found), found.whole) == ({"index"}, ["w"])


def test_slices_that_are_not_all_there(tmp_path):
    """A partitioned variable that lacks a slice is reported, and others are whole."""
    made = bundle({"p": np.arange(6.0), "w": np.ones(2)}, slices={"p": [((0, 3),), ((3, 3),)]})
    del made.records[made.slice_key("p", 1)]
    found = verified(made.write(tmp_path))
    assert [(finding.kind, finding.variable) for finding in found.findings] == [("index", "p")]
    assert "w" in found.whole


def test_slices_whose_variable_is_lost(tmp_path):
    """In an index that is damaged, slices without their variable's entry are reported, and are no variables."""
    made = bundle({"p": np.arange(6.0), "w": np.ones(2)}, slices={"p": [((0, 3),), ((3, 3),)]})
    made.records[b"p"] = b"?"
    found = verified(made.write(tmp_path))
    assert {finding.variable for finding in found.findings} == {"p"}
    assert list(found.checkpoint) == ["w"]


def test_overlapping_slices(tmp_path):
    """Slices that lie over each other are reported."""
    made = bundle({"p": np.arange(6.0), "w": np.ones(2)}, slices={"p": [((0, 4),), ((3, 3),)]})
    assert "overlapping slices" in verified(made.write(tmp_path)).findings[0].what


def test_so_many_values_in_one_place(tmp_path):
    """An index that would have a file read a thousand times is not obeyed, and it is said of what it was not."""
    made = bundle({"v": np.arange(1000.0)})
    for number in range(1000):
        made.records[b"w%d" % number] = made.records[b"v"]
    found = verified(made.write(tmp_path))
    assert len(found.damaged) == 1001 - 16
    assert "lie over each other" in found.findings[0].what


# How it is done


@pytest.mark.parametrize("size", [0, 1, 8, 9, 17, 40, 41])
def test_large_values_in_parts(size, tmp_path, monkeypatch):
    """Values checked in parts of a few bytes have the checksum that they have as a whole, or have not."""
    monkeypatch.setattr(data_checks, "_PART", 8)
    made = bundle({"a": np.arange(3, dtype=np.uint8), "v": np.arange(size, dtype=np.uint8), "z": np.ones(9)})
    prefix = made.write(tmp_path)
    assert not verified(prefix).findings
    if size:
        data = bytearray(made.shards[0])
        data[3 + size - 1] ^= 1
        data_file(prefix).write_bytes(data)
        assert list(verified(prefix).damaged) == ["v"]


@pytest.mark.parametrize("sizes", [(0, 0), (0, 5), (5, 0), (1, 1), (3, 1000), (1000, 12345)])
def test_checksums_are_combined(sizes):
    """The checksum of two runs follows from those of each."""
    random = np.random.default_rng(1)
    first, second = (random.bytes(size) for size in sizes)
    assert combine(crc32c(first), crc32c(second), len(second)) == crc32c(first + second)


def test_progress(tmp_path, monkeypatch):
    """All bytes of values are told, each once."""
    monkeypatch.setattr(data_checks, "_PART", 100)
    checkpoint = read_bundle(str(copied("dtypes", tmp_path)))
    told: list[int] = []
    verify_values(checkpoint, (), told.append)
    assert sum(told) == sum(variable.nbytes for variable in checkpoint.values())


def test_memory(fresh_python, tmp_path):
    """Values of half a gigabyte, in one variable, are checked in a few megabytes more than an index takes."""
    made = bundle({"w": np.zeros(4, np.float32)}).change("w", shape=[1 << 27], size=1 << 29)
    prefix = made.write(tmp_path)
    with open(data_file(prefix), "wb") as file:
        file.truncate(1 << 29)
    script = tmp_path / "script.py"
    script.write_text(
        "import resource, sys\n"
        "from ckpttool.formats.bundle.reading import read_bundle\n"
        "from ckpttool.formats.verifying import verify_values\n"
        "checkpoint = read_bundle(sys.argv[1])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(len(verify_values(checkpoint).findings), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    findings, kibibytes = map(int, fresh_python(script, prefix).stdout.split())
    assert findings == 1
    assert kibibytes < 20_000


def test_a_disk_that_fails(tmp_path, monkeypatch):
    """What the system can't read is reported, and the rest is read."""
    prefix = bundle({"a": np.ones(4), "b": np.ones(4)}).write(tmp_path)
    checkpoint = read_bundle(prefix)
    real = data_checks.storage.checksums

    def failing(path: str):
        manager = real(path)

        class Failing:
            def __enter__(self) -> Callable[[object], int]:
                checksum = manager.__enter__()

                def read(span):
                    if span.offset == 0:
                        raise OSError(5, "Input/output error")
                    return checksum(span)

                return read

            def __exit__(self, *error: object) -> None:
                manager.__exit__(*error)

        return Failing()

    monkeypatch.setattr(data_checks.storage, "checksums", failing)
    found = verify_values(checkpoint)
    assert found.whole == ["b"]
    assert found.findings[0].what == "can't be read: Input/output error"


def test_many_variables(tmp_path):
    """They take a few seconds, for many are checked at a time."""
    from bundles import time_limit

    crc = bundle({"w": np.zeros(4, np.float32)}).records[b"w"]
    pairs = [(b"", header(num_shards=1)), *((b"v%06d" % i, crc) for i in range(40_000))]
    (tmp_path / "model.index").write_bytes(table_of(pairs))
    with open(tmp_path / "model.data-00000-of-00001", "wb") as file:
        file.truncate(16 * 40_000)
    with time_limit(10):
        assert not verified(tmp_path / "model").findings


# What stands beside


@pytest.mark.tensorflow
def test_what_registered_savers_store_belongs_to_an_object(run, tf, tmp_path):
    """Code that is registered to save an object takes any names for what it stores: nothing is lost, or will be."""
    from tensorflow.python.saved_model import registration

    class Saved(tf.Module):
        """Saved by the function below."""

    def save(trackables, file_prefix):
        [(name, one)] = trackables.items()
        tf.raw_ops.SaveV2(prefix=file_prefix, tensor_names=[f"its/{name}"], shape_and_slices=[""], tensors=[one.value])
        return file_prefix

    registration.register_checkpoint_saver(
        name=tmp_path.name, predicate=lambda each: isinstance(each, Saved), save_fn=save, restore_fn=lambda *_: None
    )
    one = Saved()
    one.value = tf.constant([1.0, 2.0])
    prefix = tf.train.Checkpoint(one=one, w=tf.Variable(1.0)).write(str(tmp_path / "model"))
    assert "its/one" in ckpttool.open_checkpoint(prefix)
    assert ckpttool.verify(prefix).findings == []
    result = run("export", prefix, "--tf", tmp_path / "copy")
    assert "will not restore" not in result.stderr


def test_objects_of_which_nothing_is_stored(run, tmp_path):
    """A TensorFlow 2 checkpoint that lacks a variable of its object graph is reported, with the object's path."""
    prefix = copied("objects/model-1", tmp_path)
    name = next(n for n in read_bundle(str(prefix)) if "kernel" in n)
    pairs = dict(Table.from_bytes(Path(index_path(str(prefix))).read_bytes()))
    del pairs[name.encode()]
    Path(index_path(str(prefix))).write_bytes(table_of(sorted(pairs.items())))
    document = json.loads(run("verify", prefix, "--json").stdout)
    assert [(found["kind"], found["variable"]) for found in document["findings"]] == [("objects", name)]


def test_a_damaged_object_graph_is_said_once(run, tmp_path):
    """That it is damaged is said of the variable; what it says is not asked."""
    prefix = copied("objects/model-1", tmp_path)
    span = read_bundle(str(prefix))["_CHECKPOINTABLE_OBJECT_GRAPH"].slices[0].data
    data = bytearray(data_file(prefix).read_bytes())
    data[span.offset + 40] ^= 1
    data_file(prefix).write_bytes(data)
    findings = json.loads(run("verify", prefix, "--json").stdout)["findings"]
    assert [finding["kind"] for finding in findings] == ["data"]


@pytest.mark.parametrize("change", ["missing", "shape", "dtype"])
def test_the_graph_of_another_model(run, tmp_path, change):
    """A .meta whose saver wants another variable, shape or dtype is reported, and an extra variable is not."""
    prefix = copied("linear", tmp_path)
    arrays = {name: v.numpy() for name, v in read_bundle(str(prefix)).items()} | {"extra": np.ones(2)}
    name = next(iter(arrays))
    old = arrays.pop(name)
    if change != "missing":
        arrays[name] = np.ones((3, 3), np.float32) if change == "shape" else old.astype(np.int32)
    Path(bundle(arrays).write(tmp_path))
    findings = json.loads(run("verify", prefix, "--json").stdout)["findings"]
    assert [(finding["kind"], finding["variable"]) for finding in findings] == [("graph", name)]


@pytest.mark.tensorflow
@pytest.mark.parametrize("change", ["missing", "shape", "dtype", "extra"])
def test_tensorflow_restores_what_agrees(tf, run, tmp_path, change):
    """TensorFlow restores a graph from a checkpoint if `verify` finds nothing wrong with the pair, else it does not."""
    prefix = copied("linear", tmp_path)
    arrays = {name: v.numpy() for name, v in read_bundle(str(prefix)).items()} | {"extra": np.ones(2)}
    name = next(iter(arrays))
    old = arrays.pop(name)
    if change != "missing":
        arrays[name] = {"shape": np.ones((3, 3), np.float32), "dtype": old.astype(np.int32)}.get(change, old)
    Path(bundle(arrays).write(tmp_path))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(f"{prefix}.meta")
        try:
            saver.restore(session, str(prefix))
            restored = True
        except (ValueError, tf.errors.OpError):
            restored = False
    assert (run("verify", prefix).exit_code == 0) == restored == (change == "extra")


def test_a_state_file_that_names_what_is_gone(run, tmp_path):
    """Its latest checkpoint is not there: that is reported. Older ones may be gone; a directory is no state file."""
    prefix = copied("linear", tmp_path)
    state = tmp_path / "checkpoint"
    state.write_text('model_checkpoint_path: "model"\nall_model_checkpoint_paths: "old"\n')
    assert run("verify", prefix).exit_code == 0
    state.write_text('model_checkpoint_path: "model-7"\n')
    result = run("verify", prefix)
    assert (result.exit_code, "the latest checkpoint it names is gone: model-7" in result.stdout) == (1, True)
    state.write_text("model_checkpoint_path: 7")
    assert json.loads(run("verify", prefix, "--json").stdout)["findings"][0]["kind"] == "state"
    state.unlink()
    state.mkdir()
    assert run("verify", prefix).exit_code == 0


# Strictly


def odd(prefix: object) -> list[str]:
    """What is odd of what has nothing wrong with it."""
    found = verified(prefix)
    assert not found.findings
    return [finding.what for finding in strict_findings(found.checkpoint)]


def two() -> object:
    return bundle({"a": np.arange(4, dtype=np.float32), "b": np.ones(2)})


def test_bytes_after_the_last_value(tmp_path):
    """Trailing bytes are counted; zeros are called so."""
    made = two()
    made.shards[0] += b"\1\2\3"
    assert odd(made.write(tmp_path)) == ["3 bytes belong to no value, after the last one"]
    made.shards[0] = made.shards[0][:-3] + bytes(3)
    assert odd(made.write(tmp_path)) == ["3 bytes of zeros belong to no value, after the last one"]


def test_bytes_between_values(tmp_path):
    """Padding between values is counted, with the variable behind it."""
    made = two().change("b", offset=24)
    made.records[b"b"] = message_class("BundleEntryProto").FromString(made.records[b"b"]).SerializeToString()
    made.shards[0] = made.shards[0][:16] + bytes(8) + made.shards[0][16:]
    assert odd(made.write(tmp_path)) == ["8 bytes of zeros belong to no value, in front of it"]


def test_values_in_the_same_bytes(tmp_path):
    """Values that share bytes are odd."""
    made = two()
    made.records[b"c"] = made.records[b"a"]
    assert odd(made.write(tmp_path)) == ["its first 16 bytes belong to another value too"]


def test_numbers_longer_than_they_need_be(tmp_path):
    """A record with a number that is written longer than need be, or with an unknown field, is odd."""
    made = two()
    made.records[b"a"] = made.records[b"a"].replace(b"\x28\x10", b"\x28\x90\x00")
    made.records[b"b"] += field(99, 1)
    assert odd(made.write(tmp_path)) == ["the record is not as a writer encodes it"] * 2


def test_an_entry_longer_than_it_need_be(tmp_path):
    """So is a block whose own numbers are, and one that ends other than its writer would."""
    pairs = sorted(two().records.items())
    contents = b"".join(
        b"\x00" + bytes([len(key)]) + bytes([len(value) | 0x80, 0]) + key + value
        if key == b"a"
        else b"\x00" + bytes([len(key), len(value)]) + key + value
        for key, value in pairs
    )
    block = with_trailer(contents + bytes(4) + b"\1\0\0\0")
    prefix = two().write(tmp_path, index=table([(b"c", block)]))
    assert odd(prefix) == ["the block is not as a writer encodes it"]


def test_gaps_in_the_index(tmp_path):
    """Bytes of the index that belong to no block are counted; so is what its footer is padded with."""
    made = two()
    index = made.index
    footer = Footer.decode(index[-FOOTER_SIZE:])
    gap = index[:-FOOTER_SIZE] + b"xyz" + index[-FOOTER_SIZE:]
    assert odd(made.write(tmp_path, index=gap)) == ["3 bytes of the table belong to no block"]
    padded = footer.encode()[:30] + b"?" + footer.encode()[31:]
    prefix = made.write(tmp_path, index=index[:-FOOTER_SIZE] + padded)
    assert odd(prefix) == ["the footer is padded with something"]


# NaN


def test_values_that_are_not_finite(run, tmp_path):
    """--nan counts NaN and infinities of every type that has them, apart from damage; without it nothing is said."""
    import ml_dtypes

    arrays = {
        "bf": np.array([1, np.nan], ml_dtypes.bfloat16),
        "c": np.array([1 + 1j, complex(np.inf, 1)], np.complex64),
        "d": np.array([np.nan, -np.inf, np.inf, 0]),
        "f8": np.array([np.nan, 1], ml_dtypes.float8_e5m2),
        "i": np.array([1, 2]),
        "s": strings(b"nan"),
        "w": np.ones(3, np.float16),
    }
    prefix = bundle(arrays).write(tmp_path)
    assert run("verify", prefix, "-q").exit_code == 0
    result = run("verify", prefix, "--nan", "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["findings"]) == (1, [])
    assert [(row["variable"], row["nan"], row["inf"]) for row in document["not_finite"]] == [
        *(("bf", 1, 0), ("c", 0, 1), ("d", 1, 2), ("f8", 1, 0)),
    ]
    assert run("verify", FIXTURES / "conv" / "model", "--nan").stdout == ""


# V1


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    """A V1 checkpoint of several blocks."""
    random = np.random.default_rng(3)
    arrays = {f"v{i}": random.normal(size=20_000) for i in range(8)} | {"s": strings(b"a", b"bc")}
    ckpttool.write_tensor_slices(bundle(arrays).open(tmp_path), tmp_path / "model.v1")
    for path in tmp_path.glob("model.[id]*"):
        path.unlink()
    return tmp_path / "model.v1"


def test_v1_blocks(v1):
    """A changed byte damages all that is in its block, and nothing else; the block is named."""
    data = v1.read_bytes()
    handles = Table.from_bytes(data).handles
    assert len(handles) > 2
    lost = []
    for handle in handles:
        position = handle.offset + handle.size // 2
        v1.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        found = verified(v1)
        assert found.damaged
        assert any(f"at byte {handle.offset:,} of" in cause for cause in found.causes)
        lost += found.damaged
    assert sorted(lost) == sorted(found.checkpoint)


def test_v1_truncated(v1):
    """Cut off anywhere behind its first block, what is in whole blocks is whole, and values are right."""
    data = v1.read_bytes()
    expected = {name: v.numpy().tolist() for name, v in ckpttool.open_checkpoint(v1).items()}
    handles = Table.from_bytes(data).handles
    counts = []
    for size in [*(handle.offset + handle.size // 2 for handle in handles[1:]), len(data) - 100, len(data) - 1]:
        v1.write_bytes(data[:size])
        found = verified(v1)
        assert {name: found.checkpoint[name].numpy().tolist() for name in found.whole}.items() <= expected.items()
        assert f"ends after {size:,} bytes, without its own index: {len(found.whole)} of 9" in found.causes[0]
        counts.append(len(found.whole))
    assert counts == sorted(counts)
    assert counts[0] > 0
    assert counts[-1] == 9


def test_v1_shards(run, tmp_path):
    """Of a V1 checkpoint in files of which one is missing or damaged, the tensors of the others are whole."""
    for number, name in enumerate(["a", "b"]):
        checkpoint = bundle({name: np.arange(4.0)}).open(tmp_path)
        ckpttool.write_tensor_slices(checkpoint, tmp_path / f"v1-{number:05}-of-00002")
    second = tmp_path / "v1-00001-of-00002"
    data = second.read_bytes()
    assert run("verify", tmp_path / "v1").exit_code == 0
    second.write_bytes(data[:20])
    found = verified(tmp_path / "v1")
    assert (found.whole, kinds(found)) == (["a"], {"index"})
    second.unlink()
    found = verified(tmp_path / "v1")
    assert (found.whole, kinds(found)) == (["a"], {"index"})


# Tables without their end


@pytest.mark.parametrize("block_size", [100, 262144])
def test_blocks_are_found_without_an_index(block_size):
    """Of any table that a builder makes, scanning finds the blocks that its index names."""
    pairs = [(b"", b"x"), *((b"key%05d" % i, bytes([i % 256]) * (i % 40)) for i in range(500))]
    data = table_of(pairs, block_size)
    index = Table.from_bytes(data)
    found = scan(lambda offset, size: data[offset : offset + size], len(data))
    assert [block.handle for block in found] == index.handles
    assert all(block.is_whole for block in found)


@pytest.mark.parametrize(
    "data", [b"", bytes(100), b"\xff" * 100, b"not a table at all" * 9, b"\0\1\0a" * 30], ids=range(5)
)
def test_no_blocks(data):
    """What is no table has none."""
    assert scan(lambda offset, size: data[offset : offset + size], len(data)) == []


# Other formats


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    checkpoint = bundle({"a": np.arange(600.0), "b": np.ones(500), "s": strings(b"x", b"yz")}).open(tmp_path)
    made = {name: tmp_path / f"m.{name}" for name in ("npz", "safetensors", "h5")} | {"npy": tmp_path / "npy"}
    for name, path in made.items():
        getattr(ckpttool, f"write_{name.replace('h5', 'hdf5')}")(checkpoint, path)
    return made


@pytest.mark.parametrize("format", ["npz", "safetensors", "h5", "npy"])
def test_other_formats_are_read(run, sources, format):
    """Of a sound file nothing is wrong; where there are no checksums, that is said."""
    result = run("verify", sources[format])
    assert (result.exit_code, result.stdout) == (0, "")
    assert ("note: no checksums to test: values were read" in result.stderr) == (format != "npz")
    assert "3 of 3 variables whole" in result.stderr
    assert json.loads(run("verify", sources[format], "--json").stdout)["checksums"] == (format == "npz")


def test_every_byte_of_an_archive(sources):
    """A changed byte among the values of an .npz damages just that array."""
    path = sources["npz"]
    data = path.read_bytes()
    start = data.index(np.arange(600.0).tobytes())
    for position in range(start, start + 4800, 401):
        path.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
        found = verified(path)
        assert ([finding.variable for finding in found.findings], "a" in found.whole) == (["a"], False)


def test_safetensors_cut_short(sources):
    """Of a safetensors file that was cut off, tensors that are not all there are damaged, and the others whole."""
    path = sources["safetensors"]
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    found = verified(path)
    assert 0 < len(found.whole) < 3
    assert kinds(found) == {"index", "data"}


def test_safetensors_with_a_bad_entry(tmp_path):
    """An entry that can't be is passed over, and the others are whole."""
    entries = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    entries["b"] = {"dtype": "F32", "shape": [3], "data_offsets": [8, 16]}
    text = json.dumps(entries).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    found = verified(path)
    assert found.whole == ["a"]
    assert (found.findings[0].kind, found.findings[0].variable) == ("index", "b")


def test_safetensors_without_a_shard(tmp_path):
    """Of several files one is missing: what is in the others is whole."""
    checkpoint = bundle({f"v{i}": np.arange(100.0) for i in range(4)}).open(tmp_path)
    ckpttool.write_safetensors(checkpoint, tmp_path / "st", max_shard_size=1000)
    files = sorted((tmp_path / "st").glob("*.safetensors"))
    files[1].unlink()
    found = verified(tmp_path / "st")
    assert found.whole == ["v0", "v2", "v3"]
    assert kinds(found) == {"index"}


def test_hdf5_chunks(tmp_path):
    """A compressed dataset that can't be decompressed is damaged; Fletcher's checksum is tested where there is one."""
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=np.arange(5000.0), compression="gzip", chunks=(1000,))
        file.create_dataset("b", data=np.arange(5000.0), fletcher32=True, chunks=(1000,))
        file.create_dataset("c", data=np.arange(50.0))
        offsets = [file[name].id.get_chunk_info(2).byte_offset for name in ("a", "b")]
    data = bytearray(path.read_bytes())
    for offset in offsets:
        data[offset + 300] ^= 0x55
    path.write_bytes(data)
    found = verified(path)
    assert (sorted(found.damaged), found.whole) == (["a", "b"], ["c"])


# The command


def test_exit_codes(run, tmp_path):
    """0 if nothing is wrong, 1 if something is, 3 if nothing is there or it is something else, 4 if nothing is left."""
    prefix = copied("linear", tmp_path)
    index = Path(index_path(str(prefix))).read_bytes()
    assert run("verify", prefix).exit_code == 0
    assert run("verify", tmp_path / "none").exit_code == 3
    Path(index_path(str(prefix))).write_bytes(b"x" * 500)
    assert run("verify", prefix).exit_code == 3
    Path(index_path(str(prefix))).write_bytes(b"\xff" * 40 + index[40:])
    assert run("verify", prefix).exit_code == 4
    Path(index_path(str(prefix))).write_bytes(index)
    data_file(prefix).unlink()
    assert run("verify", prefix).exit_code == 1
    assert run("verify", prefix, "--format", "xml").exit_code == 2


def test_what_is_printed(run, tmp_path):
    """Findings go to standard output as rows, the causes and the count to standard error; nothing, if all is well."""
    prefix = bundle({"a": np.ones(4), "b\x1b[31m": np.ones(3)}).write(tmp_path)
    result = run("verify", prefix)
    assert (result.stdout, result.stderr) == ("", f"2 of 2 variables whole · {prefix}\n")
    data_file(prefix).write_bytes(b"?" * 56)
    result = run("verify", prefix)
    lines = result.stdout.splitlines()
    assert lines[0] == "kind\tvariable\twhat\tfile\tbyte"
    assert len(lines) == 3
    assert "\x1b" not in result.output
    assert f"likely cause: all values in {prefix}.data-00000-of-00001" in result.stderr
    assert result.stderr.endswith(f"0 of 2 variables whole · {prefix}\n")


def test_what_a_damaged_index_still_lists(run, tmp_path):
    """Of an index whose block is damaged, nobody knows how many variables it had: the count says so."""
    prefix = bundle({name: np.ones(2) for name in "abc"}).write(tmp_path)
    index = bytearray(Path(index_path(str(prefix))).read_bytes())
    index[-60] ^= 1  # In the last entry, or the restarts behind it.
    Path(index_path(str(prefix))).write_bytes(index)
    result = run("verify", prefix)
    assert result.exit_code == 1
    assert "whole, of those that the index still lists" in result.stderr


def test_json(run, tmp_path):
    """The document has the counts, the causes, and a row for each finding, with where it is."""
    prefix = bundle({"a": np.ones(4), "b": np.ones(3)}).write(tmp_path)
    data_file(prefix).write_bytes(data_file(prefix).read_bytes()[:33])
    document = json.loads(run("verify", prefix, "--json").stdout)
    assert document["schema"] == "ckpttool.verify/1"
    assert (document["variables"], document["whole"], document["checksums"]) == (2, 1, True)
    assert len(document["causes"]) == 1
    assert document["findings"] == [
        {
            "kind": "truncated",
            "variable": None,
            "what": "data file is truncated: 33 bytes of 56; 1 variable can't be read",
            "file": f"{prefix}.data-00000-of-00001",
            "byte": 33,
        }
    ]


def test_a_slice_key_is_no_variable(tmp_path):
    """A slice that is damaged is that of its variable."""
    made = bundle({"p": np.arange(6.0)}, slices={"p": [((0, 3),), ((3, 3),)]})
    made.change(encode_slice_key(b"p", ((3, 3),)), crc32c=1)
    found = verified(made.write(tmp_path))
    assert [finding.variable for finding in found.findings] == ["p"]


def _mutated(data: bytes, random: Random) -> bytes:
    """Bytes flipped, cut off, overwritten or doubled; or none of it."""
    made = bytearray(data)
    for _ in range(random.choice([0, 1, 1, 2, 4])):
        position = random.randrange(len(made) + 1)
        kind = random.randrange(4)
        if kind == 0 and position < len(made):
            made[position] ^= 1 << random.randrange(8)
        elif kind == 1:
            del made[position:]
        elif kind == 2:
            made[position : position + 4] = random.choices(b"\0\1\x80\xff", k=4)
        else:
            made[position:position] = made[random.randrange(len(made) + 1) :][: random.randrange(1, 30)]
    return bytes(made)


@pytest.mark.parametrize("format", ["bundle", "v1"])
def test_whatever_is_said_to_be_whole_is_read(format, tmp_path):
    """Of files damaged in any way, what is said to be whole can be read; with a sound index, it is what it was."""
    random = Random(11)
    arrays = {"a": np.arange(6.0), "p": np.arange(12.0).reshape(4, 3), "s": strings(b"x", b"yy"), "z": np.ones(3)}
    made = bundle(arrays, slices={"p": [((0, 2), (0, 3)), ((2, 2), (0, 3))]}, shards=2)
    prefix, files = made.write(tmp_path), sorted(tmp_path.glob("model.*"))
    if format == "v1":
        ckpttool.write_tensor_slices(ckpttool.open_checkpoint(prefix), tmp_path / "v1")
        prefix, files = str(tmp_path / "v1"), [tmp_path / "v1"]
    before = {path: path.read_bytes() for path in files}
    opened = 0
    for _ in range(120):
        for path, data in before.items():
            path.write_bytes(_mutated(data, random))
        try:
            found = verified(prefix)
        except (CheckpointError, OSError):
            continue
        opened += 1
        strict_findings(found.checkpoint)
        values = {name: found.checkpoint[name].numpy().tolist() for name in found.whole}
        if "index" not in kinds(found):
            assert values == {name: arrays[name].tolist() for name in values}
    assert opened > 30


def test_an_archive_that_is_damaged_inside_is_not_cut_off(run, tmp_path):
    """Of an archive with damaged members nobody says that it ends too soon; what can't be listed counts among all."""
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(100), b=np.arange(200, 300))
    data = bytearray(path.read_bytes())
    data[data.index(np.int64(250).tobytes())] ^= 1
    path.write_bytes(data)
    result = run("verify", path)
    assert result.exit_code == 1
    assert "without its own index" not in result.stderr
    assert "1 of 2 variables whole" in result.stderr


def test_a_file_that_may_not_be_read(tmp_path):
    """A data file without permission is one finding, and no other cause is guessed."""

    def act():
        prefix = bundle({f"v{number}": np.arange(9.0) for number in range(20)}).write(tmp_path)
        Path(f"{prefix}.data-00000-of-00001").chmod(0)
        found = verify_values(open_checkpoint(prefix))
        assert [finding.what for finding in found.findings] == ["data file may not be read: 20 variables can't be read"]
        assert len(found.causes) == 1
        assert "may not be read: 0 of 20 variables are whole; ask for its permission" in found.causes[0]
        assert not found.whole

    unprivileged(act)


def test_what_is_passed_over_is_no_whole_variable(run, tmp_path):
    """Of another format, what can't be read is said, and is a finding of --strict; nothing at all is not well (5)."""
    np.savez(tmp_path / "some.npz", a=np.ones(2), pickled=np.array([None]))
    np.savez(tmp_path / "none.npz", pickled=np.array([None]))
    result = run("verify", tmp_path / "some.npz")
    assert (result.exit_code, "warning: pickled.npy is passed over" in result.stderr) == (0, True)
    result = run("verify", tmp_path / "some.npz", "--strict")
    assert (result.exit_code, "pickled.npy is passed over" in result.stdout) == (1, True)
    result = run("verify", tmp_path / "none.npz")
    assert (result.exit_code, "nothing in it can be read" in result.stderr) == (5, True)
    with pytest.raises(NotSupportedError, match="nothing in it can be read"):
        ckpttool.verify(tmp_path / "none.npz")
    assert [finding.kind for finding in ckpttool.verify(tmp_path / "some.npz", strict=True).findings] == ["strict"]
    assert run("diff", tmp_path / "none.npz", tmp_path / "none.npz").exit_code == 5
    result = run("diff", tmp_path / "some.npz", tmp_path / "some.npz")
    assert (result.exit_code, "no differences in what can be read" in result.stderr) == (0, True)
