"""Small models that tests of running make with TensorFlow 1's API."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def save_model(tf: Any, folder: Path, build: Callable[[Any], None], **saver: Any) -> Path:
    """Builds a graph, initializes it and saves it; the checkpoint's prefix."""
    folder.mkdir(parents=True, exist_ok=True)
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        build(v1)
        session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
        v1.train.Saver(**saver).save(session, str(folder / "model"))
    return folder / "model"


def edit_meta(tf: Any, prefix: Path, change: Callable[[Any], None]) -> None:
    """Changes the MetaGraphDef of a saved model."""
    path = prefix.with_name("model.meta")
    message = tf.compat.v1.MetaGraphDef.FromString(path.read_bytes())
    change(message)
    path.write_bytes(message.SerializeToString())


def scaled(factor: float) -> Callable[[Any], None]:
    """A model of y = w x + b, with the same names whatever the factor."""

    def build(v1: Any) -> None:
        x = v1.placeholder("float32", [None], name="x")
        w = v1.get_variable("w", initializer=factor)
        b = v1.get_variable("b", initializer=1.0, use_resource=True)
        v1.add_to_collection("answers", v1.identity(x * w + b, name="y"))

    return build


def save_with_iterator(tf: Any, folder: Path) -> Path:
    """A model whose saver restores also the state of an iterator, which has given three elements; its prefix."""
    v1, keys = tf.compat.v1, tf.compat.v1.GraphKeys
    with tf.Graph().as_default(), v1.Session() as session:
        scaled(2.0)(v1)
        iterator = v1.data.make_initializable_iterator(tf.data.Dataset.range(9))
        v1.add_to_collection(keys.TABLE_INITIALIZERS, iterator.initializer)
        v1.add_to_collection(keys.SAVEABLE_OBJECTS, tf.data.experimental.make_saveable_from_iterator(iterator))
        element = v1.identity(iterator.get_next(), name="next")
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        for _ in range(3):
            session.run(element)
        v1.train.Saver().save(session, str(folder / "model"))
    return folder / "model"
