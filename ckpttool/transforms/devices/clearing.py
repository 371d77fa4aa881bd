"""What a graph says of devices and hosts beside its ops' placements: found, counted, and cleared.

Rules follow the messages' fields by number, as the docstring of the package lists them.
"""

import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from ckpttool.errors import CorruptionError
from ckpttool.transforms.graph_edits import without_ties
from ckpttool.wire.coding import encode_varint
from ckpttool.wire.message import LENGTH, Rule, edit, fields, last_field

_COLOCATION = "attribute _class (colocation)"
_NOT_CLEARED = " (a message of unknown type: not cleared)"
# A device as TensorFlow writes it, whole or in part: /job:worker/replica:0/task:3/device:GPU:0, /cpu:0; and the
# address of a host.
_DEVICE = re.compile(
    rb"(?:/(?:job:[A-Za-z][\w.-]*|replica:[\d*]+|task:[\d*]+|device:[A-Za-z_]\w*:[\d*]+|(?:cpu|gpu|tpu):[\d*]+))+"
    rb"|\bgrpc\+?\w*://[\w.:\[\]-]+",
    re.IGNORECASE,
)
# If a node's attributes contain none of these, in capitals or not, and no device hint, no rule below applies: so it is
# with most nodes. These are kept few, for each is searched for in all of a graph: "config" stands for two attributes.
_HINTS = (
    *(b"grpc", b"device", b"target_workers", b"topology", b"config"),
    *(b"host_compute_core", b"_tpu_replicate", b"_xla_outside_compilation"),
)
# The beginnings of parts of a device's name: so alike that they are searched for at once.
_DEVICE_HINT = re.compile(rb"/(?:job|replica|task|[cgt]pu):")
# The byte with which the tag of field 5 begins, however long the tag is: no attribute comes before it.
_ATTR_TAG = re.compile(rb"[\x2a\xaa]")
# Attributes that are about placement, and what is put in their place: None drops the attribute (those that begin
# with "_" have no declaration to satisfy); else the AttrValue that means "unplaced" for the ops that have it.
_EMPTY_STRING, _EMPTY_LIST = b"\x12\x00", b"\x0a\x00"
_PLACEMENT_ATTRS: dict[bytes, bytes | None] = {
    **dict.fromkeys((b"_tpu_replicate", b"_xla_outside_compilation"), None),
    **dict.fromkeys((b"send_device", b"recv_device", b"device_name", b"device_type"), _EMPTY_STRING),
    **dict.fromkeys((b"topology", b"tpu_topology", b"embedding_config", b"tpu_embedding_config"), _EMPTY_STRING),
    **dict.fromkeys((b"allowed_devices", b"device_names", b"target_workers"), _EMPTY_LIST),
    **dict.fromkeys((b"device_assignment", b"host_compute_core"), _EMPTY_LIST),
    b"send_device_incarnation": b"\x18\x00",
    b"device_ordinal": b"\x18" + encode_varint(-1),
}
# The attribute with a list that may not be empty: its strings are emptied instead. (MultiDeviceIterator)
_BLANKED_LIST = b"devices"
# Attributes that name shared things: two ops that shared one must still share it.
_NAME_ATTRS = {b"shared_name", b"shared_names", b"container", b"containers"}
# ConfigProto: device_count, device_filters, gpu_options, rpc_options, cluster_def, pluggable_device_options.
_CONFIG_FIELDS = {1: "device_count", 4: "device_filters", 6: "gpu_options", 13: "rpc_options", 14: "cluster_def"}
_CONFIG_FIELDS |= {18: "pluggable_device_options"}


class Mention(NamedTuple):
    """A device or host that is named outside NodeDef.device: where, which, and how many times."""

    where: str
    text: str
    times: int

    @property
    def remedy(self) -> str:
        """The option of strip-devices that clears it, and as little else as possible; "" if none does."""
        if self.where.endswith(_NOT_CLEARED):
            return ""
        return "--colocation" if self.where == _COLOCATION else "--all"


def _has_hint(attributes: bytes) -> bool:
    lower = attributes.lower()
    return any(map(lower.__contains__, _HINTS)) or _DEVICE_HINT.search(lower) is not None


# The ops of a graph often have the same attributes, except for large ones with values in them.
_LARGE = 1024
_has_hint_cached = lru_cache(4096)(_has_hint)


def _says_nothing(message: bytes) -> bool:
    """Whether a message has nothing but empty messages in it."""
    try:
        return all(kind == LENGTH and start == end for _, kind, _, start, end in fields(message))
    except CorruptionError:
        return False


def without_colocation(entry: bytes) -> bytes | None:
    """An entry of an op's attributes without what ties the op to another one's device; None if nothing is left."""
    return without_ties(entry, lambda _: True)


class Clearing:
    """Rules that clear every mention of a device or host, and count what they cleared.

    Args:
        data: the whole file: if none of its nodes can mention anything, none is looked at.
    """

    def __init__(self, data: bytes) -> None:
        self.mentions: Counter[tuple[str, str]] = Counter()
        self._aliases: dict[bytes, bytes] = {}
        function: dict[int, Rule] = {5: self._attr_of(" of functions")}
        graph: dict[int, Rule] = {2: {1: function}}
        if b"loc:@" in data or _has_hint(data):
            graph[1] = function[3] = self._node
        self.meta_graph: dict[int, Rule] = {
            2: graph,
            4: self._collection,
            5: {4: {2: self._tensor("signature defaults")}},
            7: {1: {7: self._saved_variable, 10: {1: self._dropped("object graph: resource device")}}},
        }

    def _count(self, where: str, text: bytes) -> None:
        # Of a serialized message, what can be read.
        shown = text if text.isascii() and b"\n" not in text else b", ".join(re.findall(rb"[ -~]{3,}", text))
        self.mentions[where, shown.decode(errors="backslashreplace")] += 1

    def _dropped(self, where: str) -> Callable[[bytes], bytes | None]:
        def rule(value: bytes) -> bytes | None:
            if not value:
                return value
            self._count(where, value)
            return None

        return rule

    def _emptied(self, where: str) -> Callable[[bytes], bytes]:
        def rule(value: bytes) -> bytes:
            if value:
                self._count(where, value)
            return b""

        return rule

    def _node(self, node: bytes) -> bytes:
        # Colocation is common, and the rest is rare: most nodes are finished here.
        if b"loc:@" in node:
            node = edit(node, {5: self._colocated})
        first = _ATTR_TAG.search(node)
        attributes = node[first.start() :] if first else b""
        if not (_has_hint if len(attributes) > _LARGE else _has_hint_cached)(attributes):
            return node
        op = last_field(node, 2).decode(errors="backslashreplace")
        return edit(node, {5: self._attr_of(f" of {op} ops")})

    def _colocated(self, entry: bytes, where: str = _COLOCATION) -> bytes | None:
        left = without_colocation(entry)
        if left != entry:
            self._count(where, b"loc:@...")
        return left

    def _attr_of(self, owner: str) -> Callable[[bytes], bytes | None]:
        """The rule for an entry (key 1, value 2) of a map of attributes."""

        def rule(entry: bytes) -> bytes | None:
            key = last_field(entry, 1)
            where = f"attribute {key.decode(errors='backslashreplace')}{owner}"
            if key in _PLACEMENT_ATTRS:
                return self._unplaced(where, key, entry)
            if key == _BLANKED_LIST:
                return edit(entry, {2: {1: {2: self._emptied(where)}}})
            text = self._aliased(where) if key in _NAME_ATTRS else self._removed(where)
            if key == b"config_proto":
                text = self._config
            return edit(entry, {2: self._attr_value(text, owner)})

        return rule

    def _unplaced(self, where: str, key: bytes, entry: bytes) -> bytes | None:
        value, unplaced = last_field(entry, 2), _PLACEMENT_ATTRS[key]
        # A custom op may use the name for something else, with a value of another kind.
        if value == unplaced or (unplaced and value[:1] != unplaced[:1]):
            return entry
        self._count(where, b", ".join(_DEVICE.findall(value)))
        return None if unplaced is None else edit(entry, {2: lambda _: unplaced})

    def _attr_value(self, text: Callable[[bytes], bytes], owner: str) -> dict[int, Rule]:
        """The rules for an AttrValue whose strings are edited by `text`."""
        tensor = self._tensor(f"values{owner}")

        def function(value: bytes) -> bytes:  # A NameAttrList: name 1, attr 2. Made when needed: it recurs.
            return edit(value, {2: self._attr_of(owner)})

        return {1: {2: text, 8: tensor, 9: function}, 2: text, 8: tensor, 10: function}

    def _config(self, config: bytes) -> bytes:
        """A serialized ConfigProto; anything else is left alone."""
        try:
            return edit(config, {n: self._configured(f"config_proto: {name}") for n, name in _CONFIG_FIELDS.items()})
        except CorruptionError:
            return config

    def _configured(self, where: str) -> Callable[[bytes], bytes | None]:
        """As `_dropped`, but for a message with nothing but empty ones in it, which names no device."""
        dropped = self._dropped(where)
        return lambda value: value if _says_nothing(value) else dropped(value)

    def _tensor(self, where: str) -> dict[int, Rule]:
        """The rules for a TensorProto: string_val 8, resource_handle_val 14, variant_val 15."""

        def variant(value: bytes) -> bytes:
            return edit(value, {3: self._tensor(where)})

        def string(value: bytes) -> bytes:  # Only a text that is just a name: a graph's data are not ours to edit.
            return self._removed(where)(value) if _DEVICE.fullmatch(value) else value

        return {8: string, 14: {1: self._dropped(f"{where}: resource handle")}, 15: variant}

    def _saved_variable(self, variable: bytes) -> bytes:
        """A SavedVariable: device 7, and the components (8) that it is distributed over."""
        return edit(variable, {7: self._dropped("object graph: variable device"), 8: self._saved_variable})

    def _collection(self, entry: bytes) -> bytes:
        """An entry of collection_def: bytes_list 2 and any_list 5, each with values 1."""
        where = f"collection {last_field(entry, 1).decode(errors='backslashreplace')}"
        return edit(entry, {2: {2: {1: self._member(where)}, 5: {1: self._any(where)}}})

    def _any(self, where: str) -> Callable[[bytes], bytes]:
        """An Any: type_url 1, value 2. An export from before there were SavedModels has its graph in one."""

        def rule(any_: bytes) -> bytes:
            if last_field(any_, 1).endswith(b"/tensorflow.GraphDef"):
                with suppress(CorruptionError):
                    return edit(any_, {2: {1: node, 2: {1: {3: node, 5: self._attr_of(" of functions")}}}})
            return edit(any_, {2: self._member(where)})

        def node(value: bytes) -> bytes:
            value = edit(value, {4: self._dropped(f"{where}: devices of ops"), 5: colocated})
            return self._node(value)

        def colocated(entry: bytes) -> bytes | None:
            return self._colocated(entry, f"{where}: {_COLOCATION}")

        return rule

    def _member(self, where: str) -> Callable[[bytes], bytes]:
        """Text is edited; in a serialized message, whose lengths would no longer hold, mentions are only counted."""

        def rule(value: bytes) -> bytes:
            if value.isascii() and not any(byte < 0x20 for byte in value):
                return self._removed(where)(value)
            for found in _DEVICE.findall(value):
                self._count(f"{where}{_NOT_CLEARED}", found)
            return value

        return rule

    def _removed(self, where: str) -> Callable[[bytes], bytes]:
        def found(match: re.Match[bytes]) -> bytes:
            self._count(where, match[0])
            return b""

        return lambda text: _DEVICE.sub(found, text)

    def _aliased(self, where: str) -> Callable[[bytes], bytes]:
        """Device names within the name of a shared thing become device_0, device_1, …, so that they stay different."""

        def found(match: re.Match[bytes]) -> bytes:
            self._count(where, match[0])
            return self._aliases.setdefault(match[0], b"/device_%d" % len(self._aliases))

        return lambda text: _DEVICE.sub(found, text)
