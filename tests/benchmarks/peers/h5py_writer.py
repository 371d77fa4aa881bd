"""h5py's own writer, given arrays that are mapped from the checkpoint's file: PREFIX OUTPUT."""

import sys

import h5py
import numpy as np

import ckpttool

with h5py.File(sys.argv[2], "w") as file:
    for name, variable in ckpttool.open_checkpoint(sys.argv[1]).items():
        [span] = variable.ranges or ()
        values = np.memmap(span.path, variable.dtype.numpy, "r", span.offset, variable.shape)
        file.create_dataset(name, data=values)
