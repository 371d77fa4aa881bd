"""What a user writes to change a checkpoint: PREFIX OUTPUT [drop | cast]."""

import sys

import tensorflow as tf

tf.compat.v1.disable_eager_execution()
how = sys.argv[3] if len(sys.argv) > 3 else ""
reader = tf.train.load_checkpoint(sys.argv[1])
with tf.compat.v1.Session() as session:
    for name in reader.get_variable_to_shape_map():
        if how == "drop" and "/Adam" in name:
            continue
        value = reader.get_tensor(name)
        if how == "cast":
            value = value.astype(tf.bfloat16.as_numpy_dtype)
        # Loaded, and not an initial value: constants would make a graph of more than 2 GiB.
        tf.compat.v1.get_variable(name, value.shape, value.dtype, use_resource=False).load(value, session)
    tf.compat.v1.train.Saver().save(session, sys.argv[2], write_meta_graph=False, write_state=False)
