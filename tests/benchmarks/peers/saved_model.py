"""What a user writes to make a SavedModel of a model: PREFIX OUTPUT INPUT OUTPUT."""

import sys

import tensorflow as tf

prefix, directory, source, result = sys.argv[1:]
tf.compat.v1.disable_eager_execution()
saver = tf.compat.v1.train.import_meta_graph(f"{prefix}.meta", clear_devices=True)
with tf.compat.v1.Session() as session:
    saver.restore(session, prefix)
    tensor = session.graph.get_tensor_by_name
    tf.compat.v1.saved_model.simple_save(session, directory, {"x": tensor(source)}, {"y": tensor(result)})
