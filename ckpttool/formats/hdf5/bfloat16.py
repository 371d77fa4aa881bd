"""bfloat16 as Keras stores it: h5py has no type for it, so it is two bytes without a type.

    /layers/dense/vars/0    in a `.weights.h5`: numbered weights are numbers, and other numbers of two bytes have a type
    /dense/dense/kernel:0   in a `.h5`: so are the weights in its lists
    /layers/own/vars/w      under a name of the layer's own: the attribute `dtype` says it, if Keras 3 wrote it

Keras 2 does not say it. Both write more than they can load again. (keras/src/saving/saving_lib.py H5Entry.__setitem__)
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
    # A text of variable length lies elsewhere; Keras writes no other one of eight characters.
    return int.from_bytes(attribute.data[:4], "little") == len("bfloat16") or attribute.data[:8] == b"bfloat16"
