"""Signatures: the tensors by which a SavedModel is served."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from ckpttool.model.arguments import Tensor, get_shape
from ckpttool.model.dtypes import DTYPES, dtype_of

HIDDEN_SIGNATURES = "__saved_model_"
"""What the names of signatures begin with that are meant for loaders, not for users."""

DEFAULT_SIGNATURE = "serving_default"
"""The key of the signature that is taken if none is asked for. (python/saved_model/signature_constants.py)"""


class Signature(NamedTuple):
    """A SignatureDef: for each key of inputs and outputs, the tensor's name and what is known of it.

    An argument of several tensors has a key for each: x.indices, x.values, x.dense_shape of a sparse x; x.0, x.1, … of
    any other, such as a ragged one.

    Attributes:
        key: the signature's own.
        method: the method_name, such as "tensorflow/serving/predict".
        inputs, outputs: by their keys, (tensor's name, Tensor) pairs.
    """

    key: str
    method: str
    inputs: dict[str, tuple[str, Tensor]]
    outputs: dict[str, tuple[str, Tensor]]


def signature_of(key: str, message: Any) -> Signature:
    """What a SignatureDef says."""
    inputs, outputs = (
        dict(found for name in sorted(infos) for found in _tensors(name, infos[name]))
        for infos in (message.inputs, message.outputs)
    )
    return Signature(key, message.method_name, inputs, outputs)


def _tensors(key: str, info: Any) -> Iterator[tuple[str, tuple[str, Tensor]]]:
    """(key, (name, what is known)) for each tensor of a TensorInfo."""
    encoding = info.WhichOneof("encoding")
    if encoding == "composite_tensor":
        for number, part in enumerate(info.composite_tensor.components):
            yield from _tensors(f"{key}.{number}", part)
        return
    dtype, shape = dtype_of(info.dtype) if info.dtype else None, get_shape(info.tensor_shape)
    if encoding == "coo_sparse":
        rank = None if shape is None else len(shape)
        parts = {"indices": ("int64", (None, rank)), "values": ("", (None,)), "dense_shape": ("int64", (rank,))}
        for part, (name, of_part) in parts.items():
            tensor = Tensor(DTYPES[name] if name else dtype, of_part)
            yield f"{key}.{part}", (getattr(info.coo_sparse, f"{part}_tensor_name"), tensor)
    else:
        yield key, (info.name, Tensor(dtype, shape))
