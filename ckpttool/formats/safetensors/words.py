"""The words of safetensors, for the reader and the writer."""

from ckpttool.model.dtypes import DTYPES
from ckpttool.model.texts import percent_encoded

FORMAT = "safetensors"
MAX_HEADER = 100_000_000
"""Bytes that the reference implementation takes."""

METADATA = "__metadata__"
"""The key in the header that is no tensor's."""

NOTES = "ckpttool.notes"
"""The key in the metadata under which the notes are."""

WORDS = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "int16": "I16",
    "uint16": "U16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "uint32": "U32",
    "float32": "F32",
    "complex64": "C64",
    "float64": "F64",
    "int64": "I64",
    "uint64": "U64",
}
"""dtype → word, in the order of the reference implementation, which writes the last ones first."""

PLACES = {word: place for place, word in enumerate(WORDS.values())}
UNKNOWN_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8}
"""Words that are not read → bits of an item."""

PACKED = {"F4"}
"""Those of them that TensorFlow has a dtype for: an item takes a byte there, and half of one here."""

DTYPES_BY_WORD = {word: DTYPES[name] for name, word in WORDS.items()}
FALLBACKS = {
    **dict.fromkeys(("string", "variant"), ("U8", "U8, as a TensorFlow checkpoint stores it")),
    "complex128": ("F64", "F64, pairs of real and imaginary part"),
    "qint8": ("I8", "I8"),
    "quint8": ("U8", "U8"),
    "qint16": ("I16", "I16"),
    "quint16": ("U16", "U16"),
    "qint32": ("I32", "I32"),
    **dict.fromkeys(("int4", "uint4", "int2", "uint2", "float4_e2m1fn"), ("U8", "U8, one a byte, in the low bits")),
    "float8_e4m3b11fnuz": ("U8", "U8, its bits"),
}
"""For what has no word here: the one it is stored by, and how that is said."""


def escape(name: str) -> str:
    """The name, with bytes that are no UTF-8 percent-encoded; and with the one that the format keeps for itself."""
    if name == METADATA:
        return name.replace("_", "%5F", 1)
    return percent_encoded(name)
