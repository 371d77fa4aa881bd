"""What is no TensorFlow checkpoint is named for what it is. Files are made by their own writers where there is one."""

import io
import tarfile
import zipfile

import h5py
import numpy as np
import pytest
from conftest import CORPUS, FIXTURES, needs_corpus

import ckpttool
from ckpttool.errors import FormatError, NotFoundError
from ckpttool.formats.lookalikes import foreign_format, refuse_lookalike
from ckpttool.wire.coding import encode_fixed32, encode_fixed64
from ckpttool.wire.crc32c import crc32c, mask


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(2), b=np.zeros(3))
    return buffer.getvalue()


def hdf5() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["a"] = 1
    return buffer.getvalue()


def record(data: bytes) -> bytes:
    length = encode_fixed64(len(data))
    return length + encode_fixed32(mask(crc32c(length))) + data + encode_fixed32(mask(crc32c(data)))


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:c1e4\nsize 1525\n"

FILES = {
    "PyTorch": (zipped("model/data.pkl", "model/data/0"), "PyTorch"),
    "PyTorch, old": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "PyTorch"),
    "pickle": (b"\x80\x04\x95\x10", "pickle"),
    "Keras": (zipped("metadata.json", "config.json", "model.weights.h5"), "a whole model of Keras"),
    "HDF5": (hdf5(), "HDF5"),
    "npz": (npz(), "npz"),
    "npy": (b"\x93NUMPY\x01\x00", "NumPy array"),
    "safetensors": ((9).to_bytes(8, "little") + b'{"a": {}}', "safetensors"),
    "ONNX": (b"\x08\x07\x12\x07pytorch\x1a\x031.9:\x00", "ONNX"),
    "TensorFlow Lite": (b"\x1c\x00\x00\x00TFL3" + bytes(40), "Lite"),
    "GGUF": (b"GGUF\x03\x00\x00\x00", "GGUF"),
    "events": (record(b"\x09" + bytes(8) + b"\x1a\x0dbrain.Event:2"), "event file"),
    "TFRecord": (record(b"\x0a\x03abc"), "TFRecord"),
    "gzip": (b"\x1f\x8b\x08\x00", "gzip"),
    "tar": (tarred(), "tar"),
    "zip": (zipped("a.txt"), "zip archive"),
    "zip of a model": (zipped("m/saved_model.pb"), "unpack"),
    "zip, cut": (zipped("a.txt")[:20], "cut short"),
    "HTML": (b"\n<!doctype HTML>", "HTML"),
    "XHTML": (b'<?xml version="1.0"?>\n<!DOCTYPE html>', "HTML"),
    "an error of a server": (b'<?xml version="1.0"?>\n<Error><Code>NoSuchKey</Code></Error>', "XML .* error"),
    "OpenVINO": (b'<?xml version="1.0"?>\n<net name="m" version="11">', "OpenVINO"),
    "MATLAB 5": (b"MATLAB 5.0 MAT-file Platform: posix".ljust(128), "scipy"),
    "Flax": (b"\x82\xa4step\x01\xa6params\x81\xa1w\xc7\x01\x01\x00", "Flax"),
    "Flax, of many": (b"\xde\x00\x10\xd9\x24params_of_an_encoder_with_a_long_name\x01", "Flax"),
    "Caffe": (b"\x0a\x05VGG16\xa2\x06\x0c\x0a\x05conv1\x12\x03Con", "Caffe"),
    "Caffe, old": (b"\x0a\x08CaffeNet\x12\x09\x22\x05conv1\x28\x04", "Caffe"),
    "another message": (b"\x12\x05hello\x18\x03\x2a\x01\x09", "some other protobuf message"),
    "Git LFS": (LFS, "git lfs pull"),
    "UTF-8 with a mark": ("\ufeffnode { name: 'x' op: 'NoOp' }".encode(), "byte order mark"),
    "UTF-16": ("node { name: 'x' op: 'NoOp' }".encode("utf-16"), "byte order mark"),
    "label map": (b"# of COCO\nitem {\n  id: 1\n  name: 'a'\n}\n", "label map"),
    "Serving's list": (b"model_config_list: {\n  config: { name: 'm' }\n}\n", "base_path"),
    "pipeline.config": (b"model {\n  ssd {\n  }\n}\n", "pipeline.config"),
    "projector": (b"embeddings {\n  tensor_name: 'w'\n}\n", "projector"),
    "TensorFlow.js": (b'{"format": "graph-model", "modelTopology": {}}', "tensorflowjs_converter"),
    "shards": (b'{"metadata": {}, "weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}', "in several files"),
    "JSON": (b'{\n  "hidden_size": 768\n}\n', "JSON"),
    "nothing": (b"", "empty"),
}


@pytest.mark.parametrize(("data", "said"), FILES.values(), ids=FILES.keys())
@pytest.mark.parametrize("name", ["model.ckpt", "saved_model.pb", "model.meta"])
def test_named_for_what_it_is(tmp_path, data, said, name):
    """Each kind is named, with what to do, whether it is opened as a checkpoint or as a graph."""
    if name == "model.ckpt" and foreign_format(data_file(tmp_path, data)):
        pytest.skip("it holds variables, and is read")
    (tmp_path / name).write_bytes(data)
    for door in (ckpttool.open_checkpoint, ckpttool.open_graph):
        with pytest.raises(FormatError, match=said) as raised:
            door(tmp_path / name)
        assert raised.value.hint or "some other" in said


def data_file(directory, data):
    path = directory / "data"
    path.write_bytes(data)
    return str(path)


def test_core_ml(tmp_path):
    """A model of Core ML begins as a SavedModel does: a version, and a message; its name tells."""
    path = tmp_path / "model.mlmodel"
    path.write_bytes(b"\x08\x07\x12\x13\x0a\x0b\x0a\x05image\x1a\x02\x22\x00\x52\x04\x0a\x02\x0a\x00")
    with pytest.raises(FormatError, match=r"a Core ML model .* coremltools"):
        refuse_lookalike(str(path))


def test_objects_have_no_graph_file():
    """Of a checkpoint of TensorFlow 2 nobody is sent to look for a .meta, which there never was; of others one is."""
    with pytest.raises(NotFoundError, match=r"no graph here .* saves none; objects and vars show what is there$"):
        ckpttool.open_graph(FIXTURES / "objects" / "model-1")
    with pytest.raises(NotFoundError, match=r"no graph here .*/model.meta is missing; vars shows the variables$"):
        ckpttool.open_graph(FIXTURES / "dtypes" / "model")


@pytest.mark.parametrize("data", [hdf5(), npz()], ids=["HDF5", "npz"])
def test_other_formats_are_known_by_their_content(tmp_path, data):
    """A file of variables in another format is read as that, whatever its name; there is no graph in it."""
    path = data_file(tmp_path, data)
    assert "a" in ckpttool.open_checkpoint(path)
    with pytest.raises(NotFoundError, match="no graph here"):
        ckpttool.open_graph(path)


@pytest.mark.parametrize("name", ["model.meta", "model.index", "renamed.meta", "v1", "w.npz"])
def test_truncated_files(tmp_path, name):
    """A file that is cut in half is said to be no such file, and perhaps truncated."""
    linear = FIXTURES / "linear" / "model"
    whole = tmp_path / "whole"
    if name in ("v1", "w.npz"):
        writer = ckpttool.write_npz if name == "w.npz" else ckpttool.write_tensor_slices
        writer(ckpttool.open_checkpoint(linear), whole)
    else:
        whole.write_bytes((linear.parent / name.replace("renamed", "model")).read_bytes())
    cut = tmp_path / name.replace("renamed.meta", "graph")
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    door = ckpttool.open_graph if "meta" in name else ckpttool.open_checkpoint
    more = "; verify tells what is left" if name == "model.index" else ""
    with pytest.raises(FormatError, match=f"it may be truncated: fetch it again{more}$"):
        door(cut)


@pytest.mark.parametrize("path", sorted(FIXTURES.rglob("model*.*")), ids=lambda path: "/".join(path.parts[-2:]))
def test_real_files_are_not_refused(path):
    """No file of a checkpoint is taken for something else."""
    refuse_lookalike(str(path))


def test_a_checkpoint_of_flax_in_a_state_files_place(tmp_path):
    """T5X and Orbax call a file of theirs as TensorFlow calls the state file: it is no damaged one."""
    (tmp_path / "checkpoint").write_bytes(FILES["Flax"][0])
    with pytest.raises(FormatError, match=r"not a checkpoint state file: .* Flax"):
        ckpttool.open_checkpoint(tmp_path)


@needs_corpus
def test_real_event_file():
    """An event file written by TensorFlow is known as one."""
    path = next(CORPUS.rglob("events.out.tfevents.*"))
    with pytest.raises(FormatError, match="TensorBoard opens it"):
        ckpttool.open_graph(path)


@pytest.mark.parametrize("suffix", ["h5", "index", "meta", "pbtxt", "npz", "safetensors"])
def test_monstrous_files_of_zeros_are_not_read(tmp_path, suffix):
    """A file that was made and never filled, as an interrupted download leaves it, takes no memory."""
    path = tmp_path / f"big.{suffix}"
    with open(path, "wb") as file:
        file.truncate(1 << 42)
    opened = ckpttool.open_checkpoint if suffix == "index" else ckpttool.open_graph
    with pytest.raises(FormatError, match=r"not a TensorFlow checkpoint|not an sstable"):
        opened(path)


@pytest.mark.parametrize("name", ["saved_model.pbtxt", "model.meta"])
@pytest.mark.parametrize(("data", "said"), [(LFS, "git lfs pull"), (b"\x80\x04\x95\x10", "pickle")], ids=["", "pickle"])
def test_no_graph_is_promised_where_there_is_none(tmp_path, name, data, said):
    """Of a graph's file without variables beside, what it is comes before what is missing."""
    (tmp_path / name).write_bytes(data)
    prefix = tmp_path / "model" if name == "model.meta" else tmp_path
    with pytest.raises(FormatError, match=said):
        ckpttool.open_checkpoint(prefix)


def test_a_saved_model_without_variables(run, tmp_path):
    """A SavedModel whose graph was frozen before misses nothing: its constants are read, as of the frozen graph."""
    run("freeze", FIXTURES / "linear" / "model.meta", "--outputs", "activation_opt", "-o", tmp_path / "frozen.pb")
    ends = ("--inputs", "x=x:0", "--outputs", "y=activation_opt:0")
    assert run("saved-model", tmp_path / "frozen.pb", *ends, "-o", tmp_path / "served").exit_code == 0
    found, frozen = (ckpttool.open_checkpoint(tmp_path / name) for name in ("served", "frozen.pb"))
    assert not ckpttool.compare(found, frozen).is_different
    assert {"W", "b"} <= found.keys()


def test_a_graph_without_anything_stored(run, tmp_path):
    """A graph without a constant has nothing to list, and what it is is said."""
    nodes = 'graph_def { node { name: "x" op: "Placeholder" } }'
    (tmp_path / "model.meta").write_text(nodes)
    with pytest.raises(NotFoundError, match=r"no variables here .* it holds a graph: ls shows it"):
        ckpttool.open_checkpoint(tmp_path / "model.meta")


@pytest.mark.parametrize("name", ["model.data", "model.data-00000-of-00001.part1", "m.data-00000-of-00001.tempstate5"])
def test_data_of_another_name(tmp_path, name):
    """Values without their index are no graph that was cut short: what reads them is told."""
    (tmp_path / name).write_bytes(b"\0\0\x80\x3f" * 9)
    for door in (ckpttool.open_checkpoint, ckpttool.open_graph):
        with pytest.raises(FormatError, match=r"data of a checkpoint are read by its index, PREFIX\.index$"):
            door(tmp_path / name)
