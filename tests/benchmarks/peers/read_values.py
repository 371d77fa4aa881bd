"""What a user writes to see whether a checkpoint can be read: PREFIX."""

import sys

import tensorflow as tf

reader = tf.train.load_checkpoint(sys.argv[1])
for name in reader.get_variable_to_shape_map():
    reader.get_tensor(name)
