"""The signatures of exports of before SavedModels (`export.meta`), which a collection has, as TensorFlow converts them.

    default_signature   classification, regression    serving_default
    named_signatures    generic "inputs", "outputs"   serving_default; serving_default_from_named, if that is taken

A default one that is generic does not say what is an input, and becomes none.
(TensorFlow 1: contrib/session_bundle/bundle_shim.py, constants.py)
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ckpttool.model.collections import decoded_collection

SIGNATURES = "serving_signatures"
"""The collection that has them: one message."""

_MESSAGE = "serving.Signatures"
_METHOD = "tensorflow/serving/"
# By the field that holds it: the method, and what its outputs are called.
_KINDS = {
    "classification_signature": ("classify", {"classes": "classes", "scores": "scores"}),
    "regression_signature": ("regress", {"output": "outputs"}),
}


class OldSignature(NamedTuple):
    """A signature: the tensors' names by what they are called."""

    key: str
    method: str
    inputs: dict[str, str]
    outputs: dict[str, str]


def old_signatures(collection_def: Any, default_key: str) -> Iterator[OldSignature]:
    """The signatures that the collections of a MetaGraphDef say; the first by the default key."""
    if SIGNATURES not in collection_def:
        return
    members = decoded_collection(SIGNATURES, collection_def[SIGNATURES]).members
    said = members[0] if members and isinstance(members[0], dict) and members[0]["@type"] == _MESSAGE else {}
    key = default_key
    for field, one in said.get("default_signature", {}).items():
        if field in _KINDS:
            method, outputs = _KINDS[field]
            yield OldSignature(key, _METHOD + method, _named(one, {"input": "inputs"}), _named(one, outputs))
            key = f"{default_key}_from_named"
    named = said.get("named_signatures", {})
    ends = [named.get(end, {}).get("generic_signature") for end in ("inputs", "outputs")]
    if None not in ends:
        inputs, outputs = (_named(end.get("map", {}), {key: key for key in end.get("map", {})}) for end in ends)
        yield OldSignature(key, f"{_METHOD}predict", inputs, outputs)


def _named(bindings: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    """The tensors that there are, by other names."""
    found = {name: bindings.get(field, {}).get("tensor_name", "") for field, name in names.items()}
    return {name: tensor for name, tensor in found.items() if tensor}
