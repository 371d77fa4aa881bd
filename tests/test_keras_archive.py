"""Whole models of Keras 3, `.keras` files: zip archives with an HDF5 file in them. h5py and Keras are the judges."""

import io
import struct
import zipfile

import h5py
import numpy as np
import pytest

import ckpttool
from ckpttool.errors import CorruptionError, FormatError, NotSupportedError

WEIGHTS = "model.weights.h5"
CHUNKED = np.arange(600, dtype=np.float32).reshape(20, 30)


def hdf5() -> bytes:
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        file["layers/dense/vars/0"] = np.arange(6, dtype=np.float32).reshape(2, 3)
        file["layers/dense/vars/1"] = np.arange(3, dtype=">f8")
        file.create_dataset("layers/chunked/vars/0", data=CHUNKED, chunks=(7, 8), compression="gzip")
        file.create_dataset("texts", data=["a", "b" * 100], dtype=h5py.string_dtype())
    return data.getvalue()


def archive(path, weights: bytes | None = None, method: int = zipfile.ZIP_STORED, name: str = WEIGHTS):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("metadata.json", "{}")
        file.writestr("config.json", "{}" * 500, zipfile.ZIP_DEFLATED)
        file.writestr(name, hdf5() if weights is None else weights, method)
    return path


@pytest.fixture
def keras_file(tmp_path):
    return archive(tmp_path / "model.keras")


def test_it_is_read_where_it_lies(keras_file) -> None:
    """Values in one run, swapped, in chunks, and texts, which lie in a heap, are those of the file that is in it."""
    checkpoint = ckpttool.open_checkpoint(keras_file)
    assert checkpoint.format == "HDF5 in a Keras archive (.keras)"
    with zipfile.ZipFile(keras_file) as file, h5py.File(io.BytesIO(file.read(WEIGHTS))) as judge:
        assert list(checkpoint) == ["layers/chunked/vars/0", "layers/dense/vars/0", "layers/dense/vars/1", "texts"]
        for name, variable in checkpoint.items():
            assert variable.numpy().tolist() == judge[name][()].tolist(), name
    assert checkpoint["layers/dense/vars/0"].ranges


def test_it_is_converted(keras_file, tmp_path) -> None:
    """Into a bundle, of which every value is the same."""
    checkpoint = ckpttool.open_checkpoint(keras_file)
    ckpttool.write_bundle(checkpoint, tmp_path / "model.ckpt")
    assert not ckpttool.compare(checkpoint, ckpttool.open_checkpoint(tmp_path / "model.ckpt")).is_different


def test_its_checksum_is_verified(keras_file) -> None:
    """HDF5 has none for values; the archive has one for all of them."""
    assert ckpttool.verify(keras_file).findings == []
    data = bytearray(keras_file.read_bytes())
    data[data.index(np.arange(6, dtype=np.float32).tobytes())] ^= 1
    keras_file.write_bytes(data)
    [finding] = ckpttool.verify(keras_file).findings
    assert (finding.kind, finding.path) == ("data", str(keras_file))
    assert finding.what == f"not a sound zip archive: Bad CRC-32 for file '{WEIGHTS}'"


def test_compressed_weights_are_refused(tmp_path) -> None:
    """Keras stores them; what somebody has zipped anew is to be unzipped."""
    with pytest.raises(NotSupportedError, match=r"model\.weights\.h5 is compressed in the archive") as raised:
        ckpttool.open_checkpoint(archive(tmp_path / "model.keras", method=zipfile.ZIP_DEFLATED))
    assert raised.value.hint == "unzip it, and give model.weights.h5"


def test_an_archive_of_another_kind(tmp_path) -> None:
    """Weights of another name are not looked for, and those of an archive without a model are not known."""
    with pytest.raises(CorruptionError, match=r"the archive has no model\.weights\.h5"):
        ckpttool.open_checkpoint(archive(tmp_path / "other.keras", name="other.weights.h5"))
    with zipfile.ZipFile(tmp_path / "zip", "w") as file:
        file.writestr(WEIGHTS, hdf5())
    with pytest.raises(FormatError, match="a zip archive"):
        ckpttool.open_checkpoint(tmp_path / "zip")


def test_a_member_that_is_not_where_it_should_be(keras_file) -> None:
    """The directory's word is not taken: the member's own header must be there, and the file as long."""
    data = keras_file.read_bytes()
    with zipfile.ZipFile(keras_file) as file:
        header = file.getinfo(WEIGHTS).header_offset
    keras_file.write_bytes(data[:header] + b"QK" + data[header + 2 :])
    with pytest.raises(CorruptionError, match="no member of the archive is where its directory says"):
        ckpttool.open_checkpoint(keras_file)
    entry = data.rindex(b"PK\1\2")
    size = (len(data) + 1).to_bytes(4, "little")
    keras_file.write_bytes(data[: entry + 20] + size * 2 + data[entry + 28 :])
    with pytest.raises(CorruptionError, match=r"model\.weights\.h5 is cut off: it ends at byte"):
        ckpttool.open_checkpoint(keras_file)


@pytest.mark.parametrize("place", [1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("name", [WEIGHTS, "w.npy"])
def test_a_member_at_no_place_of_a_file(name, place, tmp_path) -> None:
    """A member that begins where no file has bytes, which the directory can say in 64 bits, is damage, and named."""
    made = archive(tmp_path / "model.keras", name=name)
    if name == "w.npy":
        made = made.rename(tmp_path / "w.npz")
    data = made.read_bytes()
    entry, end = data.rindex(b"PK\1\2"), data.rindex(b"PK\5\6")
    changed = bytearray(data[entry:end] + struct.pack("<HHQ", 1, 8, place))
    changed[30:32], changed[42:46] = struct.pack("<H", 12), b"\xff" * 4
    tail = bytearray(data[end:])
    tail[12:16] = struct.pack("<I", struct.unpack_from("<I", tail, 12)[0] + 12)
    made.write_bytes(data[:entry] + changed + tail)
    with pytest.raises(CorruptionError, match=f"is at byte {place:,} of {len(data) + 12:,}") as raised:
        ckpttool.open_checkpoint(made)
    assert raised.value.path == str(made)


def test_what_lies_behind_the_member_is_not_read(tmp_path) -> None:
    """An HDF5 file that says it goes on behind its member is truncated, though the archive goes on."""
    with pytest.raises(CorruptionError, match="the file is truncated"):
        ckpttool.open_checkpoint(archive(tmp_path / "cut.keras", hdf5()[:-1000]))


@pytest.mark.tensorflow
def test_what_keras_saves(tf, tmp_path) -> None:
    """Every weight, and in Keras' layout, Keras loads them by the names of their layers."""
    keras = tf.keras
    layers = [keras.layers.Dense(3, name="first"), keras.layers.BatchNormalization(), keras.layers.Dense(2, name="a")]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile("adam", "mse")
    model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)
    model.save(tmp_path / "model.keras")
    checkpoint = ckpttool.open_checkpoint(tmp_path / "model.keras")
    stored = {variable.numpy().tobytes() for variable in checkpoint.values()}
    assert all(weight.numpy().tobytes() in stored for weight in model.weights)
    assert ckpttool.verify(tmp_path / "model.keras").findings == []
    expected = [weight.numpy() for weight in model.weights]
    ckpttool.write_hdf5(ckpttool.drop_slots(checkpoint), tmp_path / "weights.h5", layout="keras")
    for weight in model.weights:
        weight.assign(weight * 0)
    model.load_weights(tmp_path / "weights.h5", by_name=True)
    assert [weight.numpy().tobytes() for weight in model.weights] == [each.tobytes() for each in expected]
