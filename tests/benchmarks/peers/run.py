"""What a user writes to run a model: PREFIX INPUT OUTPUT; the input is fed with zeros, a batch of one."""

import sys

import numpy as np
import tensorflow as tf

prefix, fed, fetched = sys.argv[1:]
with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
    saver = tf.compat.v1.train.import_meta_graph(f"{prefix}.meta", clear_devices=True)
    saver.restore(session, prefix)
    shape = [size or 1 for size in graph.get_tensor_by_name(fed).shape.as_list()]
    print(session.run(fetched, {fed: np.zeros(shape)}))
