"""What Keras stores for bfloat16, which h5py has no type for: two bytes without one.

    /layers/dense/vars/0    in a `.weights.h5`: numbered weights are numbers, and all others of two bytes have a type
    /dense/dense/kernel:0   in a `.h5`: so are the weights in its lists
    /layers/own/vars/w      what a layer stores by a name of its own: the attribute `dtype` says it, if Keras 3 wrote it

Keras 2 says it nowhere. Both write more than they load again. (keras/src/saving/saving_lib.py H5Entry.__setitem__)
"""

import re

from ckpttool.formats.hdf5.datasets import Found
from ckpttool.formats.hdf5.structure.datatype import OPAQUE, Datatype

_NUMBERED = re.compile(r"(?:.*/)?vars/[0-9]+", re.DOTALL)


def is_bfloat16(found: Found, stored: Datatype) -> bool:
    """Whether a dataset of this type is bfloat16 that Keras stored."""
    if stored.kind != OPAQUE or stored.size != 2:
        return False
    if found.layer is not None or _NUMBERED.fullmatch(found.path):
        return True
    attribute = found.dataset.attributes.get(b"dtype")
    if attribute is None or not attribute.datatype.is_text:
        return False
    # A text of variable length lies elsewhere; no other of eight characters is written.
    return int.from_bytes(attribute.data[:4], "little") == len("bfloat16") or attribute.data[:8] == b"bfloat16"
