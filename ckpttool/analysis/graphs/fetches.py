"""Names that people give → tensors: what to fetch and what to feed.

    x        the first output of the op x          x:1      its second one
    images   an argument of a signature, if one is in use

A collection's members and a signature's arguments have names of their own; results are labeled with them.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from ckpttool.analysis.graphs.endpoints import endpoints
from ckpttool.analysis.graphs.needs import require_collection, require_output
from ckpttool.errors import NotFoundError, NotSupportedError
from ckpttool.model.arguments import Tensor
from ckpttool.model.collections import is_filled
from ckpttool.model.dtypes import HANDLES
from ckpttool.model.graph import MetaGraph
from ckpttool.model.names import choices_hint, listed, near_hint
from ckpttool.model.nodes import PLACEHOLDERS, VARIABLE_OPS, op_of, split_tensor
from ckpttool.model.signatures import DEFAULT_SIGNATURE, HIDDEN_SIGNATURES


class Fetch(NamedTuple):
    """A tensor to fetch: its full name, and the label of its result."""

    label: str
    tensor: str


class Choice(NamedTuple):
    """What is fetched, why, and the signature whose keys may name the inputs ("" if none)."""

    fetches: list[Fetch]
    why: str
    signature: str = ""


def full_name(graph: MetaGraph, name: str) -> str:
    """A tensor's full name: "x" → "x:0".

    Raises:
        NotFoundError: there is no such op.
    """
    op, index = (name, "0") if name in graph.by_name else split_tensor(name)
    return f"{graph.node(op).name}:{int(index)}"


def by_name(graph: MetaGraph, names: Collection[str]) -> list[Fetch]:
    """Fetches named one by one; raises as `full_name` does."""
    try:
        return [Fetch(name, value_name(graph, name)) for name in names]
    except NotFoundError as error:
        collection = next((name for name in names if name in graph.collections and name not in graph.by_name), None)
        if collection is not None:
            error.hint = " · ".join(filter(None, [f"--collection {collection} fetches that collection", error.hint]))
        raise


def named(graph: MetaGraph, names: Collection[str], signature: str = "") -> list[Fetch]:
    """Fetches named one by one, also by keys of the signature's outputs (as `feed_names` takes keys of its inputs).

    Raises:
        NotFoundError: there is no such op and no such key, or the op has no such output.
    """
    found = []
    for name in names:
        tensor = output_of(graph, name, signature)
        found.append(Fetch(name, tensor) if tensor else by_name(graph, [name])[0])
        if tensor is None:
            require_output(graph, name)
    return found


def output_of(graph: MetaGraph, name: str, signature: str) -> str | None:
    """The output with this key in the signature or, without one, in the default one; None if the name is an op's.

    Raises:
        NotFoundError: there is no such op, and only another signature has such a key.
    """
    keys, others = _keys_of(graph, signature, "outputs")
    is_op = _is_op(graph, name)
    tensor = _tensor_of(name, keys, {} if is_op else others)
    hint = _elsewhere(graph, name, "outputs") if tensor is None and not is_op else None
    if hint:
        raise NotFoundError(f"no output is named {name}", path=graph.path, hint=hint)
    return tensor


# As a signature has them: key → (tensor's name, what is known of it). They may be many, and looked up for many names.
_Keys = Mapping[str, tuple[str, Tensor]]


def _keys_of(graph: MetaGraph, signature: str, direction: str) -> tuple[_Keys, _Keys]:
    """Key → tensor, in the signature in use or, without one, in the default one."""
    default = "" if signature else signature_named(graph, None)
    return _arguments(graph, signature, direction), _arguments(graph, default, direction)


def _tensor_of(name: str, keys: _Keys, others: _Keys) -> str | None:
    """The tensor with this key, looked for in the first ones before the others; None if there is none."""
    first, second = (of[name][0] if name in of else None for of in (keys, others))
    return first or second


def _is_op(graph: MetaGraph, name: str) -> bool:
    """Whether it is the name of an op, or of one of its tensors."""
    return name in graph.by_name or op_of(name) in graph.by_name


def _elsewhere(graph: MetaGraph, name: str, direction: str) -> str | None:
    """A hint that names a signature with such a key; None if there is none."""
    keys = (key for key in _signature_keys(graph) if name in getattr(graph.signatures[key], direction))
    return next((f"the signature {key} has it: --signature {key}" for key in keys), None)


def value_name(graph: MetaGraph, name: str) -> str:
    """The full name of the tensor with the value: for the handle of a variable, the tensor that reads it.

    Raises:
        NotSupportedError: it is a handle of something without a value, or nothing reads it.
    """
    nodes = graph.by_name
    tensor = full_name(graph, name)
    if not _is_handle(graph, tensor):
        return tensor
    op = op_of(tensor)
    if nodes[op].type != "VarHandleOp":
        what = f"{tensor} is a handle without a value (of the op type {nodes[op].type})"
        raise NotSupportedError(what, path=graph.path, hint="fetch what is made of it")
    snapshots = [str(declared.get("snapshot_name", "")) for _, declared in graph.variable_defs.get(op, ())]
    for found in [*snapshots, *graph.reads.get(op, ())]:
        if op_of(found) in nodes and op_of(found) != op:
            return full_name(graph, found)
    raise NotSupportedError(f"{op} is a variable that no op reads", path=graph.path, hint="vars and cat show values")


def of_collection(graph: MetaGraph, name: str) -> list[Fetch]:
    """The members of a collection: its tensors, its ops' first outputs, its variables' values.

    Raises:
        NotFoundError: there is no such collection, or nothing in it can be fetched.
        NotSupportedError: all its members are handles without values.
    """
    require_collection(graph, name)
    found = [text for member in graph.collections[name].members if (text := member_name(member))]
    there = [text for text in found if text in graph.by_name or op_of(text) in graph.by_name]
    fetches, handles = [], []
    for text in there:
        try:
            fetches.append(Fetch(text, value_name(graph, text)))
        except NotSupportedError as error:
            handles.append(error)
    if handles and not fetches:
        raise handles[0]
    if not fetches:
        raise NotFoundError(f"nothing in the collection {name} can be fetched", path=graph.path)
    return fetches


def member_name(member: Any) -> str:
    """The name of the tensor or op that a member of a collection is, or, for a variable, of its value; else ""."""
    if isinstance(member, dict) and member.get("@type") == "VariableDef":
        return str(member.get("snapshot_name") or member.get("variable_name", ""))
    return member if isinstance(member, str) else ""


def signature_named(graph: MetaGraph, name: str | None) -> str:
    """The key of a signature: the one named, else serving_default, else the only one, else "".

    Raises:
        NotFoundError: there is none of that name.
    """
    keys = _signature_keys(graph)
    if name is None:
        return DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in keys else keys[0] if len(keys) == 1 else ""
    if name not in graph.signatures:
        raise NotFoundError(f"the graph has no signature named {name}", path=graph.path, hint=choices_hint(name, keys))
    return name


def _signature_keys(graph: MetaGraph) -> list[str]:
    return [key for key in graph.signatures if not key.startswith(HIDDEN_SIGNATURES)]


def arguments(graph: MetaGraph, signature: str, direction: str) -> dict[str, str]:
    """The tensors of a signature's inputs or outputs, by their keys."""
    return {key: tensor for key, (tensor, _) in _arguments(graph, signature, direction).items()}


def _arguments(graph: MetaGraph, signature: str, direction: str) -> _Keys:
    found: _Keys = getattr(graph.signatures[signature], direction) if signature else {}
    return found


def of_signature(graph: MetaGraph, name: str) -> list[Fetch]:
    """The outputs of a signature."""
    return [Fetch(label, tensor) for label, tensor in arguments(graph, name, "outputs").items()]


def choice_of(graph: MetaGraph, signature: str | None) -> Choice:
    """The outputs of a signature, or without one the default; raises as `signature_named` and `default_choice`."""
    if signature is None:
        return default_choice(graph)
    key = signature_named(graph, signature)
    return Choice(of_signature(graph, key), "", key)


def default_choice(graph: MetaGraph) -> Choice:
    """What is fetched by default: the signature's outputs, else the user's only collection, else the likeliest ones.

    Raises:
        NotFoundError: there are several signatures, or nothing that looks like an output.
    """
    signature = signature_named(graph, None)
    if signature:
        return Choice(of_signature(graph, signature), f"the outputs of the signature {signature}", signature)
    keys = _signature_keys(graph)
    if keys:
        raise NotFoundError("there are several signatures", path=graph.path, hint=f"choose one of {', '.join(keys)}")
    own: dict[str, list[str]] = {}
    for name in (name for name in graph.collections if not is_filled(name)):
        members = [text for text in graph.collections[name].members if isinstance(text, str)]
        if outputs := [text for text in members if _is_output(graph, text)]:
            own[name] = outputs
    if len(own) == 1:
        [(name, outputs)] = own.items()
    likeliest = next((each.tensor for each in endpoints(graph) if each.direction == "output"), None)
    if len(own) == 1 and likeliest in {full_name(graph, text) for text in outputs}:  # If not, it collects layers.
        return Choice(by_name(graph, outputs), f"the members of the collection {name}")
    return _inferred(graph)


def _is_output(graph: MetaGraph, text: str) -> bool:
    node = graph.by_name.get(op_of(text))
    if node is None or ":" not in text or node.type in {*PLACEHOLDERS, *VARIABLE_OPS, "NoOp"}:
        return False
    return not _is_handle(graph, text)


def _is_handle(graph: MetaGraph, tensor: str) -> bool:
    dtype = graph.tensor(tensor).dtype
    return dtype is not None and dtype.name in HANDLES


def _inferred(graph: MetaGraph) -> Choice:
    found = [endpoint for endpoint in endpoints(graph) if endpoint.direction == "output"]
    if not found:
        raise NotFoundError("found no outputs in this graph", path=graph.path, hint="name them: ls --ops lists the ops")
    best = [endpoint for endpoint in found if endpoint.needed] or found[:1]
    others = [each.tensor for each in found if each not in best]
    more = f"; others are {listed(others)}" if others else ""
    return Choice([Fetch(each.tensor, each.tensor) for each in best], f"the likeliest output ({best[0].reason}){more}")


def feed_names(graph: MetaGraph, names: Collection[str], signature: str = "") -> dict[str, str]:
    """The tensors to feed, by the names that were given for them.

    Args:
        graph: the graph.
        names: names of ops or tensors, or keys of the signature's inputs.
        signature: the signature in use; "": none, and keys of the default one count where no op has that name.

    Raises:
        NotFoundError: there is no such op and no such key, or the op has no such output.
        ValueError: two names stand for the same tensor.
    """
    keys, others = _keys_of(graph, signature, "inputs")
    found, taken = dict[str, str](), set[str]()
    for name in names:
        is_op = _is_op(graph, name)
        tensor = _tensor_of(name, keys, {} if is_op else others)
        if tensor is None and not is_op and keys:
            hint = _elsewhere(graph, name, "inputs") or near_hint(name, [*keys, *graph.by_name])
            hint = hint or f"the inputs of {signature} are {', '.join(keys)}"
            raise NotFoundError(f"no input is named {name}", path=graph.path, hint=hint)
        if tensor is None:
            require_output(graph, name)
            tensor = full_name(graph, name)
        if tensor in taken:
            raise ValueError(f"{tensor} is fed twice")
        taken.add(tensor)
        found[name] = tensor
    return found
