"""What a user writes to see what is in a graph: META."""

import sys

import tensorflow as tf

with tf.Graph().as_default() as graph:
    tf.compat.v1.train.import_meta_graph(sys.argv[1])
    for op in graph.get_operations():
        print(op.name, op.type)
    for key in graph.get_all_collection_keys():
        print(key, graph.get_collection(key))
