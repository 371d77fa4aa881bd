"""The names of safetensors that reader and writer share: its words for types, and keys in its header."""

from ckpttool.model.dtypes import DTYPES
from ckpttool.model.texts import percent_encoded

FORMAT = "safetensors"
MAX_HEADER = 100_000_000
"""The most bytes that the reference implementation takes."""

METADATA = "__metadata__"
"""The only key in the header that is not that of a tensor."""

NOTES = "ckpttool.notes"
"""The key of the notes in the metadata."""

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
"""Words of types that are not read → bits of an item."""

PACKED = {"F4"}
"""Those of them that have a dtype in TensorFlow, where an item takes a byte, and here half of one."""

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
"""dtype without a word → the word it is stored under, and what to say about it."""


def escape(name: str) -> str:
    """The name, with bytes that are not UTF-8 percent-encoded, and so `__metadata__`, which the format reserves."""
    if name == METADATA:
        return name.replace("_", "%5F", 1)
    return percent_encoded(name)
