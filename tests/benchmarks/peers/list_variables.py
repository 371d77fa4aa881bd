"""What a user writes to list a checkpoint's variables: PREFIX."""

import sys

import tensorflow as tf

for name, shape in tf.train.list_variables(sys.argv[1]):
    print(name, shape)
