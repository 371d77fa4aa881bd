"""Some variables of a bundle alone: looked up in the index, which is not listed."""

from pathlib import Path

import numpy as np
import pytest
from bundles import bundle, field, slice_message, strings, time_limit
from conftest import FIXTURES

import ckpttool
from ckpttool.errors import CorruptionError
from ckpttool.formats.bundle import index_path
from ckpttool.formats.bundle.reading import read_bundle
from ckpttool.wire.sstable import TableBuilder
from ckpttool.wire.sstable.blocks import BlockBuilder

PREFIXES = [path.with_suffix("") for path in sorted(FIXTURES.rglob("*.index"))]


@pytest.mark.parametrize("prefix", PREFIXES, ids=lambda prefix: prefix.parent.name)
def test_what_is_looked_up_is_what_is_listed(prefix: Path) -> None:
    """Each variable alone, and all of them by name, are those of the whole checkpoint: dtype, shape, pieces, values."""
    whole = ckpttool.open_checkpoint(prefix)
    for names in [*([name] for name in whole), list(whole)]:
        found = ckpttool.open_checkpoint(prefix, only=names)
        assert list(found) == names
        for name in names:
            one, other = found[name], whole[name]
            assert (one.dtype, one.shape, one.slices, one.shards) == (
                *(other.dtype, other.shape, other.slices),
                [piece.shard for piece in other.slices],
            )
            if one.dtype.name != "variant":
                assert one.numpy().tobytes() == other.numpy().tobytes() or one.strings() == other.strings()


def test_names_that_are_not_there(tmp_path: Path) -> None:
    """What is looked up and is not there is no variable, and a slice's key is none either."""
    made = bundle({"a": np.arange(4.0), "w": np.arange(8.0)}, slices={"w": [((0, 4),), ((4, 4),)]})
    prefix = made.write(tmp_path)
    key = made.slice_key("w").decode(errors="surrogateescape")
    assert list(read_bundle(prefix, only=["a", "b", "", "~"])) == ["a"]
    assert key not in read_bundle(prefix, only=[key])
    assert list(read_bundle(prefix, only=[])) == []


def test_a_variable_that_begins_with_nul(tmp_path: Path) -> None:
    """A name that could be a slice's key is looked for in the whole index, where it is seen to be none."""
    prefix = bundle({"\0x": np.arange(3.0), "a": np.zeros(2)}).write(tmp_path)
    assert read_bundle(prefix, only=["\0x"])["\0x"].numpy().tolist() == [0, 1, 2]


def test_damage_elsewhere(tmp_path: Path) -> None:
    """Only the block in which a variable is must be whole; with damage in it, the variable is not handed out."""
    arrays = {f"v{i:05d}": np.zeros(2, np.float32) for i in range(20_000)}
    prefix = bundle(arrays | {"z": strings(b"here")}).write(tmp_path)
    index = Path(index_path(prefix))
    data = bytearray(index.read_bytes())
    data[100] ^= 1
    index.write_bytes(data)
    with pytest.raises(CorruptionError, match="checksum"):
        read_bundle(prefix)
    with pytest.raises(CorruptionError, match="checksum"):
        read_bundle(prefix, only=["v00001"])


def test_a_missing_slice(tmp_path: Path) -> None:
    """A partitioned variable that lacks a slice is refused when it is looked up, as it is when it is listed."""
    made = bundle({"w": np.arange(8.0)}, slices={"w": [((0, 4),), ((4, 4),)]})
    del made.records[made.slice_key("w", 1)]
    prefix = made.write(tmp_path)
    for only in (None, ["w"]):
        with pytest.raises(CorruptionError, match="is missing") as caught:
            read_bundle(prefix, only=only)
        assert caught.value.variable == "w"


def test_slices_that_name_slices(tmp_path: Path) -> None:
    """Slices that are named a thousand times, and have as many themselves, do not multiply."""
    made = bundle({"w": np.arange(8.0)}, slices={"w": [((0, 4),), ((4, 4),)]})
    many = field(7, slice_message(((0, 4),)).SerializeToString()) * 10_000
    for key in [b"w", made.slice_key("w")]:
        made.records[key] += many
    prefix = made.write(tmp_path)
    with time_limit(2), pytest.raises(CorruptionError, match="verlap"):
        read_bundle(prefix, only=["w"])


def test_many_slices_far_from_a_restart(tmp_path: Path) -> None:
    """A variable in thousands of slices is looked up in one pass, though they are all behind one restart."""
    made = bundle({"w": np.arange(10_000.0)}, slices={"w": [((i, 1),) for i in range(10_000)]})
    builder = TableBuilder(1 << 30)
    builder._data = BlockBuilder(restart_interval=1 << 30)
    for key, value in sorted(made.records.items()):
        builder.add(key, value)
    prefix = made.write(tmp_path, index=builder.finish())
    with time_limit(5):
        assert read_bundle(prefix, only=["w"])["w"].numpy().tolist() == list(range(10_000))


def test_an_entry_that_is_no_message(tmp_path: Path) -> None:
    """A variable whose entry can't be read is named, looked up or listed."""
    made = bundle({"w": np.arange(8.0)})
    made.records[b"w"] = b"hello"
    prefix = made.write(tmp_path)
    for only in (None, ["w"]):
        with pytest.raises(CorruptionError) as caught:
            read_bundle(prefix, only=only)
        assert (caught.value.variable, caught.value.offset) == ("w", None)
