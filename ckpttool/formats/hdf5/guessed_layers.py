"""The layers of a `.weights.h5` that stores no names, as Keras wrote it before version 3.

    layers/dense/vars/0    layers/dense_1/vars/0                                   the first and the second Dense
    _layer_checkpoint_dependencies/dense/vars/0   …/dense_2/vars/0                 the same by TensorFlow 2.12 and 2.13

The number counts the layers of a class; these two versions count each twice. These are the names of the layers if none
was given a name, and the model was the first one.

(keras/src/saving/saving_lib.py: _save_container_state)
"""

import re

from ckpttool.model.boxes import is_size
from ckpttool.model.layer import Layer

_UNNAMED = r"(?s)((?:layers|(_layer_checkpoint_dependencies))/([^/]+?)(?:_([0-9]{1,9}))?)/(?:.+/)?vars/[0-9]+"


def guessed_layer(path: str) -> Layer | None:
    """The likely name of the layer of a weight; None if it is not of such a file."""
    match = re.fullmatch(_UNNAMED, path)
    if match is None:
        return None
    scope, is_counted_twice, kind, number = match.groups()
    count = int(number or 0) // (2 if is_counted_twice else 1)
    own = path[len(f"{scope}/vars/") :]
    return Layer(f"{kind}_{count}" if count else kind, (0, int(own)) if is_size(own) else None, scope, is_guess=True)
