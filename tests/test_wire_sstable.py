"""Tables: TensorFlow's bytes, a plain dict's contents, and nothing from a table that is not sound."""

from collections.abc import Callable
from pathlib import Path

import pytest
from bundles import block, block_of, examples, snappied, snappy_table, table, table_of, time_limit, with_trailer
from hypothesis import given
from hypothesis import strategies as st

from ckpttool.errors import CheckpointError, CorruptionError, FormatError, NotSupportedError
from ckpttool.wire.coding import decode_fixed32, encode_fixed32, encode_fixed64, encode_varint
from ckpttool.wire.sstable import MAGIC, SNAPPY, Block, BlockHandle, Footer, Table, TableBuilder

# One variable "a", float32[4] of zeros, as TensorFlow writes and reads it.
WHOLE_INDEX = bytes.fromhex(
    "00000608011a02080100010f610801120412020804281035b96f57d8000000000100000000e5b439c1"
    "000000000100000000c0f2a1b0"
    "0001026200240000000001000000005a996b35"
    "2908360e00000000000000000000000000000000000000000000000000000000000000000000000057fb808b247547db"
)
WHOLE_PAIRS = [
    (b"", bytes.fromhex("08011a020801")),
    (b"a", bytes.fromhex("0801120412020804281035b96f57d8")),
]

keys = st.binary(max_size=8) | st.text("ab/", max_size=12).map(str.encode)
dicts = st.dictionaries(keys, st.binary(max_size=40), max_size=60)


def read(data: bytes) -> dict[bytes, bytes]:
    return dict(Table.from_bytes(data))


def index_of(data: bytes) -> list[tuple[bytes, BlockHandle]]:
    """The index of a table without compression."""
    offset, size = Footer.decode(data[-48:]).index_handle
    return [(key, BlockHandle.decode(value)[0]) for key, value in Block(data[offset : offset + size])]


def blocks_of(data: bytes) -> int:
    return len(index_of(data))


def test_whole_index() -> None:
    """TensorFlow's own index file of one variable is read, and made anew byte for byte."""
    assert list(Table.from_bytes(WHOLE_INDEX)) == WHOLE_PAIRS
    assert table_of(WHOLE_PAIRS) == WHOLE_INDEX


def test_lookup_in_whole_index() -> None:
    """A key is found, and one that is not there is not."""
    found = Table.from_bytes(WHOLE_INDEX)
    assert found.lookup(b"a") == WHOLE_PAIRS[1][1]
    assert found.lookup(b"") == WHOLE_PAIRS[0][1]
    assert [found.lookup(key) for key in (b"\x00", b"aa", b"b", b"c", b"\xff")] == [None] * 5


def test_empty_table() -> None:
    """A table without pairs is two empty blocks and a footer."""
    empty = with_trailer(bytes.fromhex("0000000001000000"))
    assert TableBuilder().finish() == empty * 2 + Footer(BlockHandle(0, 8), BlockHandle(13, 8)).encode()
    assert read(TableBuilder().finish()) == {}


def test_table_of_the_empty_key() -> None:
    """The index key of a block that holds the empty key alone is empty too."""
    data = table_of([(b"", b"x")])
    assert read(data) == {b"": b"x"}
    assert [key for key, _ in index_of(data)] == [b""]


@examples
@given(dicts, st.sampled_from([1, 20, 64, 256, 4096]))
def test_round_trip(pairs: dict[bytes, bytes], block_size: int) -> None:
    """A table gives what a dict gives: every pair in key order, every value by its key, and no other."""
    made = Table.from_bytes(table_of(sorted(pairs.items()), block_size))
    assert list(made) == sorted(pairs.items())
    assert {key: made.lookup(key) for key in pairs} == pairs
    absent = {key + b"\x00" for key in pairs} | {key[:-1] for key in pairs} | {b"", b"\xff" * 9}
    assert all(made.lookup(key) is None for key in absent - set(pairs))
    assert dict(made.found(sorted(absent | set(pairs)))) == pairs


@examples
@given(dicts, st.integers(1, 5))
def test_snappy_round_trip(pairs: dict[bytes, bytes], pairs_per_block: int) -> None:
    """A table of compressed blocks gives the same pairs."""
    made = Table.from_bytes(snappy_table(sorted(pairs.items()), pairs_per_block))
    assert list(made) == sorted(pairs.items())
    assert {key: made.lookup(key) for key in pairs} == pairs


@examples
@given(dicts, st.sampled_from([1, 2, 3, 16, 1024]))
def test_block_round_trip(pairs: dict[bytes, bytes], restart_interval: int) -> None:
    """A block gives back its pairs, however often it restarts."""
    assert list(Block(block_of(sorted(pairs.items()), restart_interval))) == sorted(pairs.items())


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 31, 32, 33, 160])
def test_restart_boundaries(count: int) -> None:
    """There is a restart at every sixteenth entry, and always one at the start."""
    contents = block_of([(b"%03d" % i, b"") for i in range(count)])
    assert decode_fixed32(contents, len(contents) - 4) == max(1, (count + 15) // 16)
    assert len(list(Block(contents))) == count


@pytest.mark.parametrize(
    ("last", "following", "separator"),
    [
        (b"abc", b"abf", b"abd"),
        (b"abc", b"abd", b"abc"),
        (b"abc", b"abcd", b"abc"),
        (b"abcxyz", b"abf", b"abd"),
        (b"a\xff", b"c", b"b"),
        (b"a\xff", b"b", b"a\xff"),
        (b"", b"a", b""),
        (b"a\xfe\x01", b"a\xff", b"a\xfe\x01"),
        (b"a\xfd\x01", b"a\xff", b"a\xfe"),
    ],
)
def test_separators(last: bytes, following: bytes, separator: bytes) -> None:
    """The index key between two blocks is the shortest that LevelDB makes."""
    data = table_of([(last, b""), (following, b"")], block_size=1)
    assert index_of(data)[0][0] == separator


@pytest.mark.parametrize(
    ("last", "successor"),
    [(b"", b""), (b"a", b"b"), (b"abc", b"b"), (b"\xff", b"\xff"), (b"\xff\xff", b"\xff\xff"), (b"\xffa", b"\xffb")],
)
def test_successors(last: bytes, successor: bytes) -> None:
    """The index key of the last block is its last key, shortened upward."""
    assert [key for key, _ in index_of(table_of([(last, b"")]))] == [successor]


@pytest.mark.parametrize("excess", [-1, 0, 1])
def test_flush_boundary(excess: int) -> None:
    """A block ends with the entry that makes it as large as the block size, restarts and their count included."""
    value = bytes(1000 - 3 - 1 - 8 + excess)  # 3 bytes of lengths (one of them two bytes), "a", one restart, count.
    data = table_of([(b"a", value[:-1]), (b"b", b"")], block_size=1000)
    assert blocks_of(data) == (1 if excess < 0 else 2)


@pytest.mark.parametrize(("size", "blocks"), [(198, 1), (199, 2)])
def test_large_pairs_get_blocks_of_their_own(size: int, blocks: int) -> None:
    """A pair of twice the block size ends the block before it; a smaller one joins it."""
    data = table_of([(b"a", b""), (b"b", bytes(size))], block_size=100)
    assert blocks_of(data) == blocks
    assert read(data) == {b"a": b"", b"b": bytes(size)}


def test_large_pair_comes_first() -> None:
    """A very large first pair has no empty block before it."""
    assert blocks_of(table_of([(b"a", bytes(1000))], block_size=100)) == 1


@pytest.mark.parametrize("key", [b"b", b"a", b""], ids=["the same", "a smaller", "the empty"])
def test_builder_refuses_disorder(key: bytes) -> None:
    """A builder takes a key only after all smaller ones, also across blocks."""
    for block_size in (1, 1000):
        builder = TableBuilder(block_size)
        builder.add(b"b", b"")
        with pytest.raises(ValueError, match="in order"):
            builder.add(key, b"")


def test_every_block_lies_where_its_handle_says() -> None:
    """Data blocks follow one another without a gap, and metaindex, index and footer follow them."""
    data = table_of([(b"%04d" % i, bytes(50)) for i in range(100)], block_size=256)
    handles = [handle for _, handle in index_of(data)]
    footer = Footer.decode(data[-48:])
    position = 0
    for handle in [*handles, footer.metaindex_handle, footer.index_handle]:
        assert handle.offset == position
        position += handle.size + 5
    assert len(handles) > 10
    assert position == len(data) - 48


def test_lookup_reads_one_block() -> None:
    """A lookup reads the one block that can hold the key, unless it was the last one read; none if none can."""
    data = table_of([(b"%04d" % i, bytes(50)) for i in range(0, 200, 2)], block_size=256)
    reads = []

    def read_logged(offset: int, size: int) -> bytes:
        reads.append(offset)
        return data[offset : offset + size]

    made = Table(read_logged, len(data))
    for key, count in [(b"0100", 1), (b"0101", 0), (b"0002", 1), (b"~", 0)]:
        reads.clear()
        made.lookup(key)
        assert len(reads) == count


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", ["many names", "long names", "shared prefixes"])
def test_same_bytes_as_tensorflow(kind: str, tmp_path: Path) -> None:
    """The builder, given the pairs of an index that TensorFlow wrote in several blocks, makes the same bytes."""
    tf = pytest.importorskip("tensorflow")
    names = {
        "many names": [f"{i * 2654435761 % 2**64:016x}" * 4 for i in range(6000)],
        "long names": ["a", "b" * 600_000, "c" * 524_000, "d", "e" * 300_000, "f" * 524_288, "g" * 262_144, "h"],
        "shared prefixes": [f"model/layer_{i:05d}/dense/kernel/Adam" for i in range(9000)],
    }[kind]
    prefix = str(tmp_path / "model")
    values = [tf.zeros([0]), tf.zeros([1]), tf.zeros([200])] * (len(names) // 3 + 1)
    whole = [""] * len(names)
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=names, shape_and_slices=whole, tensors=values[: len(names)])
    data = Path(f"{prefix}.index").read_bytes()
    pairs = list(Table.from_bytes(data))
    assert [key for key, _ in pairs] == [b"", *sorted(name.encode() for name in names)]
    assert blocks_of(data) > 1
    assert table_of(pairs) == data


# What is not sound


PAIRS = [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]


@pytest.mark.parametrize("size", [0, 1, 47])
def test_too_short(size: int) -> None:
    """A file shorter than a footer is no table."""
    with pytest.raises(FormatError, match="too short"):
        Table.from_bytes(bytes(size))


def test_bad_magic() -> None:
    """A file without the magic number is no table."""
    with pytest.raises(FormatError, match="magic"):
        Table.from_bytes(table_of(PAIRS)[:-1] + b"\x00")


def test_footer_padding_is_ignored() -> None:
    """What stands between the footer's handles and its magic number means nothing."""
    data = bytearray(table_of(PAIRS))
    data[-9] = 0xFF
    assert read(bytes(data)) == dict(PAIRS)


def footer_of(handles: bytes) -> Callable[[Footer], bytes]:
    return lambda _: handles.ljust(40, b"\xff")[:40] + encode_fixed64(MAGIC)


@pytest.mark.parametrize(
    "handles",
    [b"\xff" * 40, b"\x00\x00" + b"\x80" * 38, b"\x00\x00" + b"\xff" * 9 + b"\x02"],
    ids=["no end", "index handle without end", "more than 64 bits"],
)
def test_footer_varints(handles: bytes) -> None:
    """Handles in the footer that are no varints are refused."""
    with pytest.raises(CorruptionError, match="varint"):
        Table.from_bytes(table([(b"c", with_trailer(block_of(PAIRS)))], footer=footer_of(handles)))


@pytest.mark.parametrize("number", [2**7, 2**20, 2**32, 2**40, 2**63, 2**64 - 5, 2**64 - 1])
@pytest.mark.parametrize("part", ["offset", "size"])
@pytest.mark.parametrize("where", ["footer", "index"])
def test_handles_outside_the_file(where: str, part: str, number: int) -> None:
    """A block that is not inside the file is refused before anything is read or allocated."""
    handle = BlockHandle(number, 8) if part == "offset" else BlockHandle(0, number)
    stored = [(b"c", with_trailer(block_of(PAIRS)))]
    if where == "footer":
        data = table(stored, footer=lambda footer: Footer(footer.metaindex_handle, handle).encode())
    else:
        data = table(stored, index=lambda pairs: block_of([(b"c", handle.encode())], 1))
    with pytest.raises(CorruptionError):
        read(data)
    with pytest.raises(CorruptionError):
        Table.from_bytes(data).lookup(b"a")


def test_block_at_the_very_end() -> None:
    """A block may end where the footer begins, and not one byte later."""
    data = table([(b"c", with_trailer(block_of(PAIRS)))])
    for size, fits in [(len(data) - 48 - 5, True), (len(data) - 48 - 4, False)]:
        handle = BlockHandle(0, size)
        changed = data[:-48] + Footer(handle, handle).encode()
        with pytest.raises(CorruptionError, match="block checksum mismatch" if fits else "bad block handle"):
            Table.from_bytes(changed)


@pytest.mark.parametrize("value", [b"", b"\x00", b"\x80", b"\x00\x80"])
def test_index_entry_is_no_handle(value: bytes) -> None:
    """An index entry that holds no handle is refused."""
    with pytest.raises(CorruptionError):
        Table.from_bytes(table([], index=lambda _: block_of([(b"c", value)], 1)))


def test_bytes_after_a_handle() -> None:
    """Whatever follows a handle in an index entry is passed over, as LevelDB does."""
    data = table(
        [(b"c", with_trailer(block_of(PAIRS)))],
        index=lambda pairs: block_of([(key, value + b"more") for key, value in pairs], 1),
    )
    assert read(data) == dict(PAIRS)


def test_every_byte_of_a_block_is_checked() -> None:
    """A changed byte of a block, its compression or its checksum is found."""
    data = table_of(PAIRS)
    for position in range(len(data) - 48):
        changed = bytearray(data)
        changed[position] ^= 0x10
        if position in range(*metaindex_range(data)):
            continue  # Always empty, and never read.
        with pytest.raises(CheckpointError):
            read(bytes(changed))


def metaindex_range(data: bytes) -> tuple[int, int]:
    handle = Footer.decode(data[-48:]).metaindex_handle
    return handle.offset, handle.offset + handle.size + 5


def test_what_was_let_pass_is_not_sound() -> None:
    """A block that was read in spite of its checksum is refused by whoever asks for sound ones after that."""
    stored = bytearray(with_trailer(block_of(PAIRS)))
    stored[-1] ^= 1
    made, told = Table.from_bytes(table([(b"c", bytes(stored))])), list[CheckpointError]()
    assert made.lookup(b"a", told.append) == b"1"
    assert [error.what.partition(":")[0] for error in told] == ["block checksum mismatch"]
    with pytest.raises(CorruptionError, match="checksum"):
        made.lookup(b"a")


@pytest.mark.parametrize(("bad", "following"), [(3, 16), (21, 32), (39, 40)])
def test_what_is_behind_a_bad_entry(bad: int, following: int) -> None:
    """Who is told of damage gets the pairs before a bad entry, and those from the next restart on."""
    pairs = [(b"%02d" % i, b"x") for i in range(40)]
    data, told = bytearray(table_of(pairs)), list[CheckpointError]()
    position = data.index(pairs[bad][0][1:] + b"x", 5 * bad) - 3
    data[position] = 100  # The bytes that its key has in common with the one before.
    assert list(Table.from_bytes(bytes(data)).pairs(told.append)) == pairs[:bad] + pairs[following:]
    assert [error.what.partition(":")[0] for error in told] == ["block checksum mismatch", "bad entry in block"]
    assert told[1].offset == position


@pytest.mark.parametrize("compression", [2, 3, 4, 255])
def test_unknown_compression(compression: int) -> None:
    """A block of a compression that tables do not have can't be read, and says so."""
    data = table([(b"c", with_trailer(block_of(PAIRS), compression))])
    with pytest.raises(NotSupportedError, match=f"bad block type: compression {compression}"):
        read(data)


def snappy_literal(size: int, literal: bytes) -> bytes:
    """A snappy stream of one literal that promises `size` bytes."""
    return encode_varint(size) + bytes([len(literal) - 1 << 2]) + literal


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"\x80",
        b"\xff\xff\xff\xff\xff\x01",
        b"\x05",
        snappy_literal(20, b"abc"),
        snappy_literal(1, b"abc"),
        encode_varint(8) + b"\x00a" + b"\x09\x05",
        snappy_literal(2**32 - 1, b"abcdef"),
        snappy_literal(2**31, b"abcdef"),
        encode_varint(2**40) + b"\x00a",
        encode_varint(1 << 20) + b"\x00a" + b"\xfe\x01\x00" * 100,
    ],
    ids=[
        *("nothing", "endless size", "size of 36 bits", "size alone", "too little", "too much"),
        *("copy from before the start", "4 GiB from 12 bytes", "2 GiB", "2**40", "1 MiB from 300 bytes"),
    ],
)
def test_bad_snappy(contents: bytes) -> None:
    """A snappy stream that is damaged, or promises more than it can hold, is refused without allocating that."""
    with time_limit(2), pytest.raises(CorruptionError):
        read(table([(b"c", with_trailer(contents, SNAPPY))]))


def test_errors_in_a_compressed_block_say_where_it_lies() -> None:
    """The offset of an error in a compressed block's size is that of the block."""
    first = with_trailer(block_of(PAIRS))
    with pytest.raises(CorruptionError) as caught:
        read(table([(b"c", first), (b"d", with_trailer(b"\x80", SNAPPY))]))
    assert caught.value.offset == len(first)


def test_errors_in_an_entry_say_where_it_lies() -> None:
    """The offset of an error in an entry's varints is in the file, not in the block."""
    first = with_trailer(block_of(PAIRS))
    bad = with_trailer(b"\xff" * 30 + block([]))
    with pytest.raises(CorruptionError) as caught:
        read(table([(b"c", first), (b"d", bad)]))
    assert caught.value.offset == len(first)


def test_compressible_blocks_are_read() -> None:
    """A block that snappy makes as small as it can is no bomb."""
    pairs = [(b"a", bytes(200_000)), (b"b", b"ab" * 100_000)]
    data = table([(b"b", snappied(block_of(pairs)))])
    assert len(data) < 30_000
    assert read(data) == dict(pairs)


def test_no_restarts() -> None:
    """A block that counts no restarts is empty, whatever stands in it: Java's LevelDB writes such."""
    assert list(Block(block([], restarts=()))) == []
    assert list(Block(block([(0, b"a", b"1")], count=0))) == []
    data = table([(b"a", with_trailer(block([(0, b"a", b"1")], count=0))), (b"c", with_trailer(block_of(PAIRS[2:])))])
    assert read(data) == {b"c": b"3"}
    assert read(table([], index=lambda _: block([], restarts=()))) == {}


ENTRIES = [(0, b"a", b"1"), (0, b"b", b"2"), (0, b"c", b"3")]  # Of five bytes each.


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"\x01\x00\x00",
        encode_fixed32(1),
        block(ENTRIES, count=2**32 - 1),
        block(ENTRIES, count=2**30),
        block(ENTRIES, count=6),
        block(ENTRIES, (5,)),
        block(ENTRIES, (1,)),
        block(ENTRIES, (0, 0)),
        block(ENTRIES, (0, 5, 5)),
        block(ENTRIES, (0, 10, 5)),
        block(ENTRIES, (0, 15)),
        block(ENTRIES, (0, 2**32 - 1)),
        block(ENTRIES, (0, 4)),
        block(ENTRIES, (0, 11)),
        block([], (0, 0)),
        block([], (1,)),
    ],
    ids=[
        *("nothing", "three bytes", "count alone", "count 2**32 - 1", "count 2**30", "one more than there are"),
        *("first not 0", "first 1", "twice 0", "twice 5", "descending", "at the end", "2**32 - 1"),
        *("inside the first entry", "inside the last entry", "empty with two", "empty with 1"),
    ],
)
def test_bad_restarts(contents: bytes) -> None:
    """Restarts that are not at the starts of entries, in order, the first at 0, are refused."""
    with pytest.raises(CorruptionError):
        list(Block(contents))


def test_good_restarts() -> None:
    """Restarts may be at any of the entries."""
    for restarts in [(0,), (0, 5), (0, 10), (0, 5, 10)]:
        assert list(Block(block(ENTRIES, restarts))) == PAIRS


@pytest.mark.parametrize(
    "contents",
    [
        block([(1, b"a", b"")]),
        block([(0, b"a", b""), (2, b"b", b"")]),
        block([(0, b"ab", b""), (1, b"c", b""), (3, b"d", b"")]),
        block([(0, b"a", b""), (1, b"b", b"")], (0, 4)),
        block([(0, b"b", b""), (0, b"a", b"")]),
        block([(0, b"a", b""), (0, b"a", b"")]),
        block([(0, b"a", b""), (1, b"", b"")]),
        block([(0, b"a", b""), (0, b"", b"")]),
        block([(0, b"", b""), (0, b"", b"")]),
        b"\x00\x01\x7fa" + block([]),
        b"\x00\x7f\x00a" + block([]),
        b"\x00\x01\xff\xff\xff\xff\x0fa" + block([]),
        b"\x00\xff\xff\xff\xff\x0f\x01a" + block([]),
        b"\x00\x01\x80\x80\x80\x80\x10a" + block([]),
        b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00" + block([]),
        b"\x00" + block([]),
        b"\x00\x00" + block([]),
        b"\x00\x01\x01a" + block([]),
    ],
    ids=[
        *("first shares", "shares more than there is", "third shares too much", "shares at a restart"),
        *("unsorted", "duplicate", "duplicate by sharing", "empty key later", "two empty keys"),
        *("value past the end", "key past the end", "value of 4 GiB", "key of 4 GiB", "length of 33 bits"),
        *("endless varint", "one byte left", "two bytes left", "value in the restarts"),
    ],
)
def test_bad_entries(contents: bytes) -> None:
    """An entry that can't be, or is not after the one before, ends the iteration with an error, never silently."""
    with pytest.raises(CorruptionError):
        list(Block(contents))


def test_entries_before_a_bad_one_come_out() -> None:
    """A bad entry raises when it is reached."""
    pairs = iter(Block(block([(0, b"a", b"1"), (9, b"b", b"2")])))
    assert next(pairs) == (b"a", b"1")
    with pytest.raises(CorruptionError, match="bad entry in block"):
        next(pairs)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([b"a", b"b"], [b"b", b"c"]),
        ([b"c", b"d"], [b"a", b"b"]),
        ([b"a", b"x"], [b"y"]),
    ],
    ids=["the same key in two", "blocks out of order", "a key greater than the index says"],
)
def test_blocks_out_of_order(first: list[bytes], second: list[bytes]) -> None:
    """Keys that are not in order across blocks, or not as the index says, are refused."""
    blocks = [(b"m", [(key, b"") for key in first]), (b"z", [(key, b"") for key in second])]
    with pytest.raises(CorruptionError):
        read(table([(key, with_trailer(block_of(pairs))) for key, pairs in blocks]))


@pytest.mark.parametrize("keys_", [[b"b", b"a"], [b"a", b"a"]], ids=["unsorted", "duplicate"])
def test_index_out_of_order(keys_: list[bytes]) -> None:
    """An index whose keys are not in order is refused."""
    handle = BlockHandle(0, 8).encode()
    with pytest.raises(CorruptionError, match="bad entry"):
        Table.from_bytes(table([], index=lambda _: block([(0, key, handle) for key in keys_])))


def test_the_same_block_many_times() -> None:
    """An index that leads to one large block again and again is refused before it is followed."""
    big = with_trailer(block_of([(b"a", bytes(100_000))]))
    handle = BlockHandle(0, len(big) - 5).encode()
    data = table([(b"a", big)], index=lambda _: block_of([(b"%04d" % i, handle) for i in range(1000)], 1))
    with time_limit(2), pytest.raises(CorruptionError, match="larger than the file"):
        Table.from_bytes(data)


def test_the_same_block_twice() -> None:
    """An index that leads to one small block twice gives its keys once, and then an error."""
    data = table(
        [(b"a", with_trailer(block_of([(b"a", b"1")]))), (b"z", with_trailer(block_of([(b"b", bytes(1000))])))],
        index=lambda pairs: block_of([pairs[0], (b"b", pairs[0][1]), pairs[1]], 1),
    )
    pairs = iter(Table.from_bytes(data))
    assert next(pairs) == (b"a", b"1")
    with pytest.raises(CorruptionError, match="not in order"):
        next(pairs)


def test_data_block_that_is_the_index() -> None:
    """An index that calls itself a data block is refused: its keys come out of order."""
    first = with_trailer(block_of([(b"a", b"1")]))
    # Behind the first block and the empty metaindex; two entries of six and of seven bytes, two restarts.
    itself = BlockHandle(len(first) + 13, 6 + 7 - 1 + 12)
    data = table([(b"a", first)], index=lambda pairs: block_of([*pairs, (b"b", itself.encode())], 1))
    assert Footer.decode(data[-48:]).index_handle == itself
    with time_limit(2), pytest.raises(CorruptionError, match="not in order"):
        read(data)


def test_file_becomes_shorter() -> None:
    """A read that gives less than was asked for is an error."""
    data = table_of([(b"%04d" % i, bytes(50)) for i in range(100)], block_size=256)
    cut = [len(data)]
    made = Table(lambda offset, size: data[: cut[0]][offset : offset + size], len(data))
    cut[0] = 1000
    with pytest.raises(CorruptionError, match="shorter"):
        list(made)


def test_every_truncation() -> None:
    """A table cut off anywhere is refused, at every length."""
    data = table_of([(b"%04d" % i, bytes(9)) for i in range(30)], block_size=128)
    for size in range(len(data)):
        with pytest.raises(CheckpointError):
            read(data[:size])


def test_every_truncation_as_far_as_it_goes() -> None:
    """Who is told of it gets every pair that is there of a table cut off anywhere, and no other."""
    pairs = [(b"%03d" % i if i else b"", b"<%03d>" % i) for i in range(60)]
    data = table_of(pairs, block_size=100)
    assert blocks_of(data) > 3
    ends = [data.index(value) + len(value) for _, value in pairs]
    for size in range(ends[0], len(data)):
        told: list[CheckpointError] = []
        found = Table.from_bytes(data[:size], told.append).pairs(told.append)
        assert list(found) == [pair for pair, end in zip(pairs, ends, strict=True) if end <= size]
        assert told


@examples
@given(st.binary(max_size=200))
def test_any_bytes_as_a_block(contents: bytes) -> None:
    """Whatever bytes a block has, it gives pairs in key order or raises CorruptionError."""
    for restarts in (b"", block([])):
        try:
            pairs = list(Block(contents + restarts))
        except CorruptionError:
            continue
        assert [key for key, _ in pairs] == sorted({key for key, _ in pairs})


@examples
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_as_data_and_index(contents: bytes, compressed: bool) -> None:
    """Whatever bytes the blocks have, under right checksums, a table raises a CheckpointError or gives pairs."""
    stored = with_trailer(contents, SNAPPY if compressed else 0)
    for data in (
        table([(b"z", stored)]),
        table([], index=lambda _: contents),
        table([], index=lambda _: contents + block([])),
    ):
        with time_limit(2):
            try:
                pairs = read(data)
            except CheckpointError:
                continue
        assert list(pairs) == sorted(pairs)
