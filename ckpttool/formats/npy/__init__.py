r"""NumPy's `.npy`: a header that says dtype and shape, and the values as they are in memory.

    93 4e 55 4d 50 59 | 01 00 | 76 00 | {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }      \n | values

Every variable becomes an array of its own bytes. If NumPy has no type for them, they become integers with the same
bits: bfloat16 is uint16, 8-bit floats and numbers of four and two bits are uint8, quantized numbers the integers they
are. Strings have a fixed width (`S`), for so NumPy has bytes; but if that would lose a trailing NUL, or if most of the
array would be padding, they are uint8, as a bundle stores them. Variants always are.

A directory of such files needs names that every file system keeps apart, so it has an `index.json`:

    {"schema": "ckpttool.npy/1",
     "variables": [{"name": "a/b", "file": "a%2Fb.npy", "dtype": "float32", "shape": [2, 3]}]}

and a variable may have a `note` there that says what it was (formats.notes).  (numpy/lib/format.py)
"""

from ckpttool.formats.npy.directory import (
    plan_npy,
    read_npy,
    read_npy_directory,
    require_npy_writable,
    write_npy,
    write_npy_file,
)

__all__ = ["plan_npy", "read_npy", "read_npy_directory", "require_npy_writable", "write_npy", "write_npy_file"]
