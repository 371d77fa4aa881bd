"""The names of the layers of a model of Keras 2 in its SavedModel, by the numbers that they have in its checkpoint.

    keras_metadata.pb   nodes (1): number (2), metadata (5)                                     TensorFlow 2.5 to 2.15
    saved_model.pb      meta_graphs (2): object_graph_def (7): nodes (1): user_object (4): metadata (3)     2.0 to 2.4

The metadata begin with {"name": "dense", or have the class's name before that.

(tensorflow/python/keras/protobuf/saved_metadata.proto, core/protobuf/saved_object_graph.proto)
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress

from ckpttool import storage
from ckpttool.errors import CheckpointError
from ckpttool.formats.saved_model.names import VARIABLES
from ckpttool.model.texts import to_text
from ckpttool.wire.message import MAX_SIZE, values, values_of

# Not parsed as JSON: the metadata of a model contain those of all its layers, nested.
_NAME = r'\{(?:"class_name": "[^"]*", )?"name": ("(?:[^"\\]|\\.)*")'

# No name is longer, and no more of the metadata is read.
_HEAD = 4096
_MOST_SCOPES = 100  # No layer's name has so many slashes; each scope would be a group in HDF5.


def layer_names(prefix: str) -> dict[int, str]:
    """Number of an object → its name; empty if the prefix is not a SavedModel's checkpoint, or there are no names."""
    if not f"{os.sep}{prefix}".endswith(f"{os.sep}{VARIABLES}"):
        return {}
    directory = prefix.removesuffix(VARIABLES)
    found: dict[int, str] = {}
    with suppress(CheckpointError, OSError):
        for number, metadata in _metadata(directory):
            if name := _name(metadata):
                found[number] = name
    return found


def _name(metadata: bytes) -> str:
    """The name that metadata begin with; "" if there is none, or it can be no layer's."""
    match = re.match(_NAME, to_text(metadata[:_HEAD]))
    with suppress(ValueError):
        name = str(json.loads(match[1])) if match else ""
        return name if name.count("/") < _MOST_SCOPES and name.encode() else ""
    return ""


def _metadata(directory: str) -> Iterator[tuple[int, bytes]]:
    path = os.path.join(directory, "keras_metadata.pb")
    if os.path.isfile(path):
        for node in values_of(_message(path), 1):
            said = {number: value for number, _, value in values(node)}
            number, metadata = said.get(2, 0), said.get(5)
            if isinstance(number, int) and isinstance(metadata, bytes):
                yield number, metadata
        return
    graph = next(values_of(_message(os.path.join(directory, "saved_model.pb")), 2), b"")
    for objects in values_of(graph, 7):
        for number, node in enumerate(values_of(objects, 1)):
            yield from ((number, text) for user in values_of(node, 4) for text in values_of(user, 3))


def _message(path: str) -> bytes:
    """The contents of a file; empty if it is too large for a message."""
    return storage.read_file(path) if storage.file_size(path) <= MAX_SIZE else b""
