"""Input pipelines: the ops that take data from one, its iterator or queue, and what fills that.

    MakeIterator(dataset, IteratorV2)     IteratorV2  ─▶ IteratorGetNext
    QueueEnqueueV2(FIFOQueueV2, …)        FIFOQueueV2 ─▶ QueueDequeueV2
    Stage (shared_name "s")                              Unstage (shared_name "s")

TensorFlow fails at once for an iterator that nothing has filled, and waits for ever for a queue.

(tensorflow/core/ops/dataset_ops.cc, data_flow_ops.cc, io_ops.cc)
"""

import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

from ckpttool.analysis.graphs.needs import must_be_fed, needed_ops, origin, walk
from ckpttool.model.nodes import Node, op_of, shared_name

_GETS_NEXT = r"IteratorGetNext(?:Sync|AsOptional)?|MultiDeviceIteratorGetNextFromShard"
PIPELINE = (
    rf"\w*Dequeue\w*|{_GETS_NEXT}|ReaderRead(?:UpTo)?(?:V2)?|BarrierTakeMany"
    r"|(?:(?:Ordered)?Map)?Unstage(?:NoKey)?|(?:Stage|(?:Ordered)?Map)Peek"
)
"""The types of ops that give data out of an input pipeline, as a regular expression."""

LONG = 200  # Longer types and names are monstrous, and not matched.
_STAGED = re.compile(r"\w*(?:Stage|Unstage|UnstageNoKey|Peek)")
_FILLS = re.compile(r"\w*Enqueue\w*|BarrierInsertMany|(?:(?:Ordered)?Map)?Stage")
_MAKES = ("MakeIterator", "MultiDeviceIteratorInit")
# An iterator that fills itself, and one from elsewhere, by a handle.
_OWN_DATA = re.compile(r"OneShotIterator|IteratorFromStringHandle(?:V2)?|MultiDeviceIteratorFromStringHandle")


# A large graph has many ops of few types.
@lru_cache(4096)
def is_pipeline(type_: str) -> bool:
    """Whether ops of a type give data out of an input pipeline."""
    return len(type_) < LONG and re.fullmatch(PIPELINE, type_) is not None


@lru_cache(4096)
def gets_next(type_: str) -> bool:
    """Whether ops of a type take from an iterator."""
    return len(type_) < LONG and re.fullmatch(_GETS_NEXT, type_) is not None


def source_of(nodes: Mapping[str, Node], node: Node) -> str:
    """What an op of a pipeline takes from or fills: the op of a queue or an iterator, or the shared name of a stage; ""
    if it is missing.
    """
    if _STAGED.fullmatch(node.type[:LONG]):
        return shared_name(node.message) or node.name
    # MakeIterator(dataset, iterator); ReaderRead(reader, queue).
    place = 1 if node.type == "MakeIterator" or node.type.startswith("ReaderRead") else 0
    name = origin(nodes, node.operands[place], ("Identity", "Enter"))[0] if place < len(node.operands) else ""
    return name if name in nodes else ""


def waits(nodes: Mapping[str, Node], node: Node, filled: Collection[str] = ()) -> bool:
    """Whether an op takes from a pipeline without data: its source is not among `filled`, and has none of its own."""
    if not is_pipeline(node.type):
        return False
    source = source_of(nodes, node)
    return source not in filled and not (source in nodes and _OWN_DATA.fullmatch(nodes[source].type))


def handle_of(nodes: Mapping[str, Node], node: Node) -> str:
    """The placeholder for the handle of the iterator that an op takes from; "" if there is none. (Only the session that
    made the iterator knows the handle.)
    """
    source = nodes.get(source_of(nodes, node)) if is_pipeline(node.type) else None
    if source is None or not source.type.startswith("IteratorFromStringHandle") or not source.operands:
        return ""
    handle = nodes.get(origin(nodes, source.operands[0])[0])
    return handle.name if handle is not None and must_be_fed(nodes, handle) else ""


def stand_ins(nodes: Mapping[str, Node], ops: Iterable[str]) -> list[str]:
    """The placeholders, among these ops, that may be fed in place of a pipeline, which gives their defaults.

    A placeholder behind another one is left out: it is for what a model has computed, such as a code.
    """
    users: dict[str, list[str]] = {}
    pipelines, defaults = set[str](), dict[str, None]()
    for name in sorted(ops):
        node = nodes[name]
        if is_pipeline(node.type):
            pipelines.add(name)
        elif node.type == "PlaceholderWithDefault":
            defaults[name] = None
        for text in node.operands:
            users.setdefault(op_of(text), []).append(name)
    piped = walk(pipelines, users, defaults.keys())
    return [name for name in defaults if any(op_of(text) in piped for text in nodes[name].operands)]


def filled_by(nodes: Mapping[str, Node], ops: Iterable[str]) -> set[str]:
    """The queues, iterators and stages that these ops fill when they are run."""
    fillers = (nodes[op] for op in ops if op in nodes)
    found = {source_of(nodes, node) for node in fillers if node.type in _MAKES or _FILLS.fullmatch(node.type[:LONG])}
    return found - {""}


def iterator_makers(nodes: Mapping[str, Node]) -> dict[str, list[str]]:
    """Iterator → the ops that give it its data."""
    found: dict[str, list[str]] = {}
    for node in nodes.values():
        if node.type in _MAKES and (iterator := source_of(nodes, node)):
            found.setdefault(iterator, []).append(node.name)
    return found


def sole_makers(nodes: Mapping[str, Node]) -> dict[str, str]:
    """Iterator → the op that gives it its data, if there is only one, and that op needs no feeding."""
    found = {}
    for iterator, makers in iterator_makers(nodes).items():
        if len(makers) == 1:
            ops = needed_ops(nodes, makers)
            if not any(must_be_fed(nodes, nodes[op]) or waits(nodes, nodes[op]) for op in ops):
                found[iterator] = makers[0]
    return found
