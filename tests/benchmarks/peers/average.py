"""What a user writes to average checkpoints: OUTPUT PREFIX…"""

import sys

import numpy as np
import tensorflow as tf

tf.compat.v1.disable_eager_execution()
readers = [tf.train.load_checkpoint(prefix) for prefix in sys.argv[2:]]
with tf.compat.v1.Session() as session:
    for name in readers[0].get_variable_to_shape_map():
        total = sum(reader.get_tensor(name).astype(np.float64) for reader in readers)
        mean = (total / len(readers)).astype(np.float32)
        tf.compat.v1.get_variable(name, mean.shape, mean.dtype, use_resource=False).load(mean, session)
    tf.compat.v1.train.Saver().save(session, sys.argv[1], write_meta_graph=False, write_state=False)
