"""What a user writes to compare two checkpoints: PREFIX PREFIX; exit code 0 in any case."""

import sys

import numpy as np
import tensorflow as tf

one, other = map(tf.train.load_checkpoint, sys.argv[1:])
for name in one.get_variable_to_shape_map():
    a, b = one.get_tensor(name), other.get_tensor(name)
    if not np.array_equal(a, b):
        x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
        cosine = x @ y / (np.linalg.norm(x) * np.linalg.norm(y))
        print(name, (a != b).sum(), np.abs(x - y).max(), np.linalg.norm(x - y), cosine)
