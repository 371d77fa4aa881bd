"""What a user writes to see what is in a checkpoint's variables: PREFIX."""

import sys

import numpy as np
import tensorflow as tf

reader = tf.train.load_checkpoint(sys.argv[1])
for name in reader.get_variable_to_shape_map():
    value = reader.get_tensor(name)
    finite = value[np.isfinite(value)]
    spread = finite.min(), finite.max(), finite.mean(dtype=np.float64), finite.std(dtype=np.float64)
    counts = np.isnan(value).sum(), np.isinf(value).sum(), (value == 0).sum()
    print(name, spread, counts, np.quantile(finite, [0.01, 0.25, 0.5, 0.75, 0.99]), np.histogram(finite, 16)[0])
