"""What a user writes to get a checkpoint's values into safetensors: PREFIX OUTPUT."""

import sys

import tensorflow as tf
from safetensors.numpy import save_file

reader = tf.train.load_checkpoint(sys.argv[1])
save_file({name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}, sys.argv[2])
