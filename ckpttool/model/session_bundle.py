"""Exports from before SavedModels (`export.meta`), which keep signatures and assets in collections; signatures are read
as TensorFlow converts them.

    default_signature   classification, regression    serving_default
    named_signatures    generic "inputs", "outputs"   serving_default; serving_default_from_named, if that is taken

A generic default signature does not say what is an input, and is left out.
(TensorFlow 1: contrib/session_bundle/bundle_shim.py, constants.py)
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ckpttool.model.collections import decoded_collection

# Two collections: one has a single message, the other one a message for each file; and the messages' names.
_SIGNATURES, _ASSETS = "serving_signatures", "serving_assets"
_SIGNATURES_TYPE, _ASSET_TYPE = "serving.Signatures", "serving.AssetFile"
_METHOD = "tensorflow/serving/"
# By the signature's field: the method, and the outputs' fields with their names.
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
    """The signatures in the collections of a MetaGraphDef; the first has the default key."""
    said = next(_members(collection_def, _SIGNATURES, _SIGNATURES_TYPE), {})
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


def old_assets(collection_def: Any) -> dict[str, str]:
    """The assets in the collections of a MetaGraphDef: tensor that holds the path → the file in `assets/`."""
    members = _members(collection_def, _ASSETS, _ASSET_TYPE)
    found = {each.get("tensor_binding", {}).get("tensor_name", ""): each.get("filename", "") for each in members}
    return {tensor: file for tensor, file in found.items() if tensor and file}


def _members(collection_def: Any, name: str, kind: str) -> Iterator[dict[str, Any]]:
    """The members of a collection that are of one kind."""
    found = decoded_collection(name, collection_def[name]).members if name in collection_def else ()
    return (each for each in found if isinstance(each, dict) and each["@type"] == kind)


def _named(bindings: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    """The tensors that are bound, by their new names."""
    found = {name: bindings.get(field, {}).get("tensor_name", "") for field, name in names.items()}
    return {name: tensor for name, tensor in found.items() if tensor}
