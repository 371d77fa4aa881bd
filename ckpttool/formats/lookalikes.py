"""What people take for a TensorFlow checkpoint, and what it is by its first bytes.

To most people "ckpt" means PyTorch; downloads leave HTML pages and Git LFS pointers; and a model's directory holds more
than its checkpoint. Each row of the table says what a file is and what to do with it.
"""

import os
import re
from collections.abc import Callable

from ckpttool import storage
from ckpttool.errors import CheckpointError, FormatError, NotSupportedError
from ckpttool.wire.coding import decode_fixed32, decode_fixed64
from ckpttool.wire.crc32c import crc32c, mask
from ckpttool.wire.message import LENGTH, VARINT, fields

TRUNCATED = "it may be truncated: fetch it again"
"""A hint for a file that seems not to be whole."""

_HEAD, _POINTER = 2056, 1024
# The chunked form is a file of records of that format. (github.com/google/riegeli)
_RIEGELI = b"\x83\xaf\x70\xd1\x0d\x88\x4a\x3f"


def refuse_lookalike(path: str) -> None:
    """Raises FormatError if the first bytes of a file, or its name, show that it is something else.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it is something else, or empty, or no regular file.
        NotSupportedError: it is a SavedModel in the chunked form.
    """
    size = storage.file_size(path)
    if not size:
        raise FormatError("an empty file", path=path, hint="fetch it again: a download or a copy was cut short")
    companion = _COMPANIONS.get(os.path.basename(path))
    if companion:
        raise FormatError(f"not a checkpoint or graph: {companion}", path=path, hint="give the model's directory")
    head = storage.read_range(path, 0, _HEAD)
    if path.endswith(".cpb") or head.startswith(_RIEGELI):
        hint = "TensorFlow loads it, and saves a smaller one whole"
        raise NotSupportedError("a SavedModel in chunks (.cpb), as over 2 GB", path=path, hint=hint)
    found = look_of(path) or (_CORE_ML if path.endswith(".mlmodel") else None)
    if found:
        raise FormatError(f"not a TensorFlow checkpoint or graph: {found[0]}", path=path, hint=found[1])


def look_of(path: str) -> tuple[str, str] | None:
    """What a file is, by its first bytes, and what to do with it; None if they do not tell.

    Data files may begin with anything, so ask only about one that is known not to be what it should be.
    """
    head = storage.read_range(path, 0, _HEAD)
    found = next(((what, hint) for looks_like, what, hint in _TABLE if looks_like(head)), None)
    return _zip_kind(path) if not found and head.startswith(b"PK\x03\x04") else found


def is_pointer(path: str) -> bool:
    """Whether a file is a Git LFS pointer, which is shorter than 1,024 bytes. (git-lfs/docs/spec.md)"""
    is_small = os.path.isfile(path) and os.path.getsize(path) < _POINTER
    return is_small and os.access(path, os.R_OK) and _is_pointer(storage.read_range(path, 0, _POINTER))


def foreign_format(path: str) -> str | None:
    """The other format with variables that a file has ("hdf5", "npz", "npy", "safetensors"); None if none."""
    head = storage.read_range(path, 0, _HEAD) if os.path.isfile(path) else b""
    found = next((name for name, is_one in _FOREIGN.items() if is_one(head)), None)
    if found is None and head and _has_user_block(path):
        return "hdf5"
    # The second is how an archive without members starts.
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _ZIPS.get(_zip_kind(path)[0])
    return found


def _starts(*magics: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magics)


_is_pointer = _starts(b"version https://git-lfs")


def _begins(pattern: bytes) -> Callable[[bytes], bool]:
    """Tells the text of a message by its first field, after spaces and comments."""
    compiled = re.compile(rb"(?:\s|#[^\n]*\n)*+" + pattern)
    return lambda head: compiled.match(head) is not None


def _is_json(key: bytes) -> Callable[[bytes], bool]:
    """Tells a JSON object or list that has one of these keys near its beginning."""
    compiled = re.compile(rb"\"(?:" + key + rb")") if key else re.compile(rb"")
    return lambda head: re.match(rb"\s*[\[{]\s*[\"\[{\]}0-9]", head) is not None and compiled.search(head) is not None


_is_apple_double = _starts(b"\x00\x05\x16\x07")


def is_apple_double(path: str) -> bool:
    """Whether a file is what macOS writes beside each one, in archives and on other systems' disks. (RFC 1740)"""
    is_named_so = os.path.basename(path).startswith("._") and os.path.isfile(path) and os.access(path, os.R_OK)
    return is_named_so and _is_apple_double(storage.read_range(path, 0, 4))


def _is_hdf5(head: bytes) -> bool:
    """Whether HDF5's signature is at the start, or after a user block of 512, 1,024, … bytes, as MATLAB's is."""
    return any(head.startswith(b"\x89HDF\r\n\x1a\n", place) for place in (0, 512, 1024, 2048))


def _has_user_block(path: str) -> bool:
    """Whether HDF5 begins after a user block that is larger than the head: of 4,096, 8,192, … bytes."""
    places = (1 << power for power in range(12, storage.file_size(path).bit_length()))
    return any(storage.read_range(path, place, 8) == b"\x89HDF\r\n\x1a\n" for place in places)


def _is_record_file(head: bytes) -> bool:
    """A TFRecord: length, its masked checksum, data. (xla/tsl/lib/io/record_writer.cc)"""
    return len(head) >= 12 and mask(crc32c(head[:8])) == decode_fixed32(head, 8)


def _is_event_file(head: bytes) -> bool:
    # An Event starts with its field 1, wall_time, a double.
    return _is_record_file(head) and head[12:13] == b"\x09"


def _is_safetensors(head: bytes) -> bool:
    return bool(re.match(rb"[\s\S]{8}\s*\{\s*[\"}]", head)) and decode_fixed64(head) < 100_000_000


def _is_onnx(head: bytes) -> bool:
    """A ModelProto: ir_version 1 is a varint as in a SavedModel, but producer_name 2 is text and not a message."""
    try:
        first, second = [head[value:end] for _, _, _, value, end in _first_fields(head, ((1, VARINT), (2, LENGTH)))]
    except (CheckpointError, ValueError):
        return False
    return len(first) == 1 and second.isascii() and second.decode().isprintable()


def _is_caffe(head: bytes) -> bool:
    """A NetParameter: its name, where a graph has a message, which begins with no letter; then layers or inputs.

    (caffe/src/caffe/proto/caffe.proto: name 1, layers 2, input 3, layer 100)
    """
    name = head[2 : 2 + head[1]] if head[:1] == b"\x0a" and len(head) > 1 else b""
    after = head[2 + len(name) :]
    return re.fullmatch(rb"[A-Za-z][ -~]*", name) is not None and after.startswith((b"\x12", b"\x1a", b"\xa2\x06"))


def _first_fields(head: bytes, expected: tuple[tuple[int, int], ...]) -> list[tuple[int, int, int, int, int]]:
    found = []
    for field, kind in zip(fields(head), expected, strict=False):
        if field[:2] != kind:
            raise ValueError
        found.append(field)
    return found


# Files that lie beside a SavedModel's.
_COMPANIONS = {
    "fingerprint.pb": "the fingerprint of a SavedModel",
    "keras_metadata.pb": "what Keras adds to a SavedModel",
    "tfhub_module.pb": "the mark of a TensorFlow Hub module",
    "saved_model_config.pb": "TensorFlow Serving's configuration of a SavedModel",
}
_HTML = "an HTML page, as a failed download leaves"
_XML = rb"\s*<\?xml[^>]*>\s*"
# A map that is not empty and whose first key is a text: fixstr, or str 8.
_MSGPACK = re.compile(rb"(?:[\x81-\x8f]|\xde..|\xdf....)(?:[\xa1-\xbf]|\xd9[\x20-\xff])[\w/.-]", re.DOTALL)
_TORCH_PICKLE = "a Python pickle, as PyTorch once wrote its .pt and .ckpt files"
_PICKLE_HINT = "torch.load opens it; a pickle runs code, so trust it first"
_CORE_ML = ("a Core ML model", "coremltools opens it")  # Its first fields are those of a SavedModel.
_NPZ = ("a NumPy archive (.npz)", "numpy.load opens it")
_KERAS = ("a whole model of Keras (.keras)", "keras.saving.load_model opens it")
_ZIPS = {_NPZ[0]: "npz", _KERAS[0]: "hdf5"}
_FOREIGN = {"hdf5": _is_hdf5, "safetensors": _is_safetensors, "npy": _starts(b"\x93NUMPY")}
_TABLE: list[tuple[Callable[[bytes], bool], str, str]] = [
    (_is_pointer, "a Git LFS pointer, not the file itself", "git lfs pull fetches it"),
    (_starts(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P"), _TORCH_PICKLE, _PICKLE_HINT),
    (_starts(b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), _TORCH_PICKLE, _PICKLE_HINT),
    (_is_hdf5, "an HDF5 file, as Keras writes", "h5py and Keras open it"),
    (_is_safetensors, "a safetensors file", "the safetensors library opens it"),
    (_starts(b"\x93NUMPY"), "a NumPy array", "numpy.load opens it"),
    (_is_apple_double, "what macOS keeps beside a file, as ._NAME", "give the file itself, without ._ before its name"),
    (_starts(b"MATLAB 5.0 MAT-file"), "a file of MATLAB 5 (.mat)", "scipy.io.loadmat opens it; save -v7.3 writes HDF5"),
    (lambda head: _MSGPACK.match(head) is not None, "a msgpack file, as Flax writes", "flax.serialization opens it"),
    (_is_caffe, "a Caffe model (.caffemodel)", "Caffe and OpenCV's dnn open it"),
    (_starts(b"GGUF"), "a GGUF model", "llama.cpp opens it"),
    (lambda head: head[4:8] == b"TFL3", "a TensorFlow Lite model", "tf.lite.Interpreter opens it"),
    (_is_onnx, "an ONNX model", "the onnx library opens it"),
    (_is_event_file, "an event file, as summaries are written to", "TensorBoard opens it"),
    (_is_record_file, "a TFRecord file of data", "tf.data.TFRecordDataset opens it"),
    (_starts(b"\x1f\x8b"), "a gzip archive", "unpack it, and give what is inside"),
    (lambda head: head[257:262] == b"ustar", "a tar archive", "unpack it, and give what is inside"),
    (
        _starts(b"BZh", b"\xfd7zXZ\x00", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd", b"Rar!"),
        "a compressed archive",
        "unpack it, and give what is inside",
    ),
    (
        _starts(b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"),
        "a text with a byte order mark, as editors on Windows write",
        "save it as UTF-8 without one, as TensorFlow reads it",
    ),
    (_begins(rb"item\s*\{"), "a label map, as object detection has beside its models", "give the model itself"),
    (
        _begins(rb"model_config_list\s*[:{]"),
        "TensorFlow Serving's list of models",
        "give a directory that a base_path in it names",
    ),
    (
        _begins(rb"model\s*\{"),
        "a configuration, as object detection's pipeline.config",
        "give the checkpoint, or the graph",
    ),
    (_begins(rb"embeddings\s*\{"), "a configuration of TensorBoard's projector", "give the checkpoint that it names"),
    (
        _is_json(rb"modelTopology|weightsManifest"),
        "a TensorFlow.js model",
        "tensorflowjs_converter makes a SavedModel of it",
    ),
    (_is_json(rb"weight_map"), "the index of weights in several files", "give one of the files that it names"),
    (_is_json(rb""), "a JSON file, such as a model's configuration", "give the file with the weights, or the graph"),
    (
        lambda head: bool(re.match(rb"(?:%b)?\s*<(!doctype html|html)" % _XML, head, re.IGNORECASE)),
        _HTML,
        "download it again",
    ),
    (lambda head: bool(re.match(_XML + rb"<net\b", head)), "an OpenVINO model", "OpenVINO opens it"),
    (
        lambda head: bool(re.match(_XML, head)),
        "an XML text, as a server answers with an error",
        "download it again; it says why that failed",
    ),
]


def _zip_kind(path: str) -> tuple[str, str]:
    """What a zip archive holds, by its members' names."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            names = [os.path.basename(name) for name in archive.namelist()[:1000]]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return (
            "a zip archive, cut short or damaged",
            f"NumPy's .npz and PyTorch's .pt and .ckpt files are such; {TRUNCATED}",
        )
    if "data.pkl" in names or "constants.pkl" in names:
        return "a PyTorch checkpoint (.pt, .ckpt)", "torch.load opens it"
    if "config.json" in names and any(name.endswith(".weights.h5") for name in names):
        return _KERAS
    if any(name.startswith("saved_model.pb") or name.endswith(".index") for name in names):
        return "a zip archive with a TensorFlow model in it", "unpack it, and give what is inside"
    if any(name.endswith(".npy") for name in names) or (path.endswith(".npz") and not names):
        return _NPZ
    return "a zip archive", "unpack it, and give what is inside"
