"""What a user writes to take the devices out of a graph: META OUTPUT."""

import sys

import tensorflow as tf

with tf.Graph().as_default():
    tf.compat.v1.train.import_meta_graph(sys.argv[1], clear_devices=True)
    tf.compat.v1.train.export_meta_graph(sys.argv[2])
