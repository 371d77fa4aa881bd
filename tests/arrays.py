"""Arrays for the tests of NumPy's formats: such as others write, odd ones, and files that are none."""

import io
import struct

import ml_dtypes
import numpy as np

BIG = 1 << 62

# What NumPy has no type for: the one whose bits are the same.
BITS = {
    "bfloat16": "uint16",
    **dict.fromkeys(("float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz"), "uint8"),
    **dict.fromkeys(("float8_e5m2fnuz", "float4_e2m1fn", "int4", "uint4", "int2", "uint2"), "uint8"),
    "qint8": "int8",
    "quint8": "uint8",
    "qint16": "int16",
    "quint16": "uint16",
    "qint32": "int32",
}


def npy(array, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def header(text: bytes, data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    """A .npy file with a header of any text."""
    length = struct.pack("<H" if version == b"\1\0" else "<I", len(text))
    return b"\x93NUMPY" + version + length + text + data


OTHERS = {
    "a/b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "by columns": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
    "big-endian": np.arange(6, dtype=">i2").reshape(3, 2),
    "big-endian by columns": np.asfortranarray(np.arange(6, dtype=">c16").reshape(3, 2)),
    "bfloat16": np.array([[1.5, -2, 3e38]], ml_dtypes.bfloat16),
    "bfloat16 by columns": np.asfortranarray(np.arange(6).reshape(3, 2).astype(ml_dtypes.bfloat16)),
    "scalar": np.array(3.5),
    "none": np.zeros((0, 3), np.int8),
    "none by columns": np.zeros((3, 0, 2), ">f4", order="F"),
    "bool": np.array([True, False]),
    "é 😀 .": np.float16(1),
    "../../x": np.uint64(1),
    "/abs": np.int64(1),
    "": np.int32(1),
    "a\\b": np.int32(2),
    "c:d": np.int32(3),
}
STRINGS = {
    "text": np.array([["é", ""], ["ab", "c"]]),
    "text by columns": np.asfortranarray(np.array([["é", ""], ["ab", "c"]], ">U2")),
    "bytes": np.array([b"a", b"", b"\0b"]),
    "none": np.zeros((0, 2), "S3"),
    "scalar": np.array("x"),
}

DAMAGED = {
    "no array": b"w",
    "empty array": b"",
    "huge shape": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904,), }"),
    "overflowing shape": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }"),
    "shape over 64 bits": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }" % (1 << 70)),
    "shape of many digits": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }" % (b"9" * 5000)),
    "negative shape": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1), }", b"1234"),
    "true for 1": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }", b"1234"),
    "float shape": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1.0,), }", b"1234"),
    "shape of a list": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': [1], }", b"1234"),
    "rank 99": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }" % (b"1," * 99), b"1234"),
    "order of 1": header(b"{'descr': '<f4', 'fortran_order': 1, 'shape': (1,), }", b"1234"),
    "code": header(b"__import__('os').mkdir('sprung')"),
    "code in the dtype": header(b"{'descr': __import__('os').mkdir('sprung'), 'fortran_order': False, 'shape': ()}"),
    "no dict": header(b"[1, 2]"),
    "keys missing": header(b"{'descr': '<f4'}"),
    "unfinished": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,"),
    "indented": header(b"  {\n 'descr':\n\t'<f4'\n  }\n }"),
    "NUL": header(b"{'descr': '<f4\0', 'fortran_order': False, 'shape': (1,), }", b"1234"),
    "deep": header(b"(" * 9000 + b")" * 9000),
    "deep minus": header(b"{'descr': " + b"-" * 9000 + b"1}"),
    "10 MB header": header(b"{'descr': '<f4', " + b" " * 10_000_000 + b"}", b"", b"\2\0"),
    "header over the file": b"\x93NUMPY\2\0\xff\xff\xff\xff{}",
    "empty dtype": header(b"{'descr': (), 'fortran_order': False, 'shape': (), }", b"1234"),
    "odd dtype": header(b"{'descr': ('<f4',), 'fortran_order': False, 'shape': (), }", b"1234"),
    "dtype of nothing": header(b"{'descr': None, 'fortran_order': False, 'shape': (), }", b"1234"),
    "dtype of a list": header(b"{'descr': [1, 2], 'fortran_order': False, 'shape': (), }", b"1234"),
    "dtype of a number": header(b"{'descr': 4, 'fortran_order': False, 'shape': (), }", b"1234"),
    "huge dtype": header(b"{'descr': '<V99999999999', 'fortran_order': False, 'shape': (), }", b"1234"),
    "text beyond Unicode": header(b"{'descr': '<U1', 'fortran_order': False, 'shape': (1,), }", b"\xff\xff\xff\x7f"),
}
"""Files that are no arrays, or can't be."""

ODD = {
    "version 9": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (), }", b"1234", b"\x09\0"),
    "strings of width 0": header(b"{'descr': '|S0', 'fortran_order': False, 'shape': (4611686018427387904,), }"),
    "texts of width 0": header(b"{'descr': '<U0', 'fortran_order': False, 'shape': (99999999999,), }"),
    "nothing in it": header(b"{'descr': '|V0', 'fortran_order': False, 'shape': (99999999999,), }"),
    "array in an array": header(b"{'descr': ('<f4', (2,)), 'fortran_order': False, 'shape': (1,), }", b"12345678"),
}
"""Arrays that no variable can be."""
