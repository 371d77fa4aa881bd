"""A SavedModel of TensorFlow 2 whose signatures are hard to freeze."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

RNG = np.random.default_rng(0)


def _values(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


class Model(tf.Module):
    """Two of its variables have one name; each function is a signature."""

    def __init__(self, vocabulary: str) -> None:
        super().__init__()
        self.w, self.b = tf.Variable(_values(3, 3), name="w"), tf.Variable(_values(3), name="b")
        self.rows = tf.Variable(_values(7, 3), name="w")
        self.count, self.text = tf.Variable(3, name="count"), tf.Variable("héllo", name="text")
        keys = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([5, 6], tf.int64))
        self.table = tf.lookup.StaticHashTable(keys, 0)
        line = tf.lookup.TextFileIndex.LINE_NUMBER
        lines = tf.lookup.TextFileInitializer(vocabulary, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, line)
        self.vocabulary = tf.lookup.StaticVocabularyTable(lines, 2)
        self.memory = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], name="x")])
    def loop(self, x: Any) -> Any:
        for i in tf.range(self.count):
            if i % 2 == 0:
                x = tf.matmul(x, self.w)
            else:
                x = x + self.b + tf.gather(self.rows, i)
        return {"y": x, "text": self.text.read_value()}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="x")])
    def looked_up(self, x: Any) -> Any:
        return {"y": tf.nn.embedding_lookup(self.rows, self.table.lookup(x))}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="x")])
    def looked_up_in_a_file(self, x: Any) -> Any:
        return {"y": tf.nn.embedding_lookup(self.rows, self.vocabulary.lookup(x))}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="x")])
    def remembered(self, x: Any) -> Any:
        return {"y": self.memory.lookup(x)}

    @tf.function(input_signature=[tf.TensorSpec([], name="x")])
    def read_and_updated(self, x: Any) -> Any:
        y = self.b * x
        self.b.assign_add([x, x, x])
        return {"y": y}

    @tf.function(input_signature=[tf.TensorSpec([], name="x")])
    def updated_and_read(self, x: Any) -> Any:
        self.b.assign_add([x, x, x])
        return {"y": self.b * x}


FEEDS = {
    "loop": _values(2, 3),
    "looked_up": np.array([b"a", b"?", b"b"]),
    "looked_up_in_a_file": np.array([b"y", b"?", b"x"]),
    "read_and_updated": np.float32(2),
}
SIGNATURES = [*FEEDS, "remembered", "updated_and_read"]


def save(folder: Path) -> Path:
    (folder / "vocabulary.txt").write_text("x\ny\n")
    model = Model(str(folder / "vocabulary.txt"))
    model.memory.insert(["a"], tf.constant([4], tf.int64))
    saved = folder / "saved"
    tf.saved_model.save(model, str(saved), signatures={name: getattr(model, name) for name in SIGNATURES})
    return saved


def save_keras(folder: Path) -> Path:
    """A recurrent model of Keras, whose layers are functions of several implementations."""
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((5,), dtype="int32"), layers.Embedding(9, 4), layers.LSTM(3), layers.Dense(2, "softmax")]
    )
    model.export(str(folder / "keras"), verbose=False)
    return folder / "keras"
