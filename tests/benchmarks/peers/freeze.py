"""What a user writes to freeze a model: PREFIX OUTPUT OP."""

import sys

import tensorflow as tf

prefix, output, op = sys.argv[1:]
tf.compat.v1.disable_eager_execution()
saver = tf.compat.v1.train.import_meta_graph(f"{prefix}.meta", clear_devices=True)
with tf.compat.v1.Session() as session:
    saver.restore(session, prefix)
    graph_def = tf.compat.v1.graph_util.convert_variables_to_constants(session, session.graph_def, [op])
with open(output, "wb") as file:
    file.write(graph_def.SerializeToString())
