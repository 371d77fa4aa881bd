"""safetensors' own writer, given arrays that are mapped from the checkpoint's file: PREFIX OUTPUT."""

import sys

import numpy as np
from safetensors.numpy import save_file

import ckpttool

arrays = {}
for name, variable in ckpttool.open_checkpoint(sys.argv[1]).items():
    [span] = variable.ranges or ()
    arrays[name] = np.memmap(span.path, variable.dtype.numpy, "r", span.offset, variable.shape)
save_file(arrays, sys.argv[2])
