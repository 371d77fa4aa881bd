"""Inputs changed a little: bytes, protobuf messages, texts, JSON.

All is drawn from one `random.Random`, so that an input is known by the seed it was made from.
"""

import json
from collections.abc import Callable
from random import Random
from typing import Any

from ckpttool.errors import CheckpointError
from ckpttool.wire.coding import encode_varint
from ckpttool.wire.message import LENGTH, VARINT, fields

NUMBERS = [0, 1, 2, 7, 8, 127, 128, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53]
NUMBERS += [2**62, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 5, 2**64 - 2, 2**64 - 1]
TEXTS = [
    b"",
    b"^",
    b":",
    b"^^",
    b":0",
    b"^:0",
    b"x:0",
    b"x:99999999999",
    b"x:-1",
    b"^x:1",
    b"x:0:0",
    b"/",
    b"//",
    b"..",
]
TEXTS += [b"../../x", b"/abs", b"CON", b"a\0b", b"\xff\xfe", b"\x1b[2J", b"\xe2\x80\xae", b"\xc2\x9b31m", b"a" * 300]
TEXTS += [b"loc:@x", b"loc:@", b"/job:a/task:1", b"\xed\xa0\x80", b"a/b/.ATTRIBUTES/VARIABLE_VALUE", b"serving_default"]

Parsed = list[tuple[int, int, bytes]]


def number(random: Random) -> int:
    """One that is odd for its place, or small."""
    kind = random.random()
    if kind < 0.6:
        return random.choice(NUMBERS)
    return random.randrange(20) if kind < 0.9 else random.getrandbits(64)


def changed_bytes(random: Random, data: bytes) -> bytes:
    """One to four changes of bytes: a bit, a byte, a number, a piece taken out, doubled, moved or cut off."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        data = random.choice(_BYTES)(random, bytearray(data))
    return data


def _flip(random: Random, data: bytearray) -> bytes:
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(data)


def _byte(random: Random, data: bytearray) -> bytes:
    if data:
        data[random.randrange(len(data))] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
    return bytes(data)


def _fixed(random: Random, data: bytearray) -> bytes:
    size = random.choice((2, 4, 8))
    at = random.randrange(len(data) + 1)
    data[at : at + size] = (number(random) & (1 << 8 * size) - 1).to_bytes(size, "little")
    return bytes(data)


def _span(random: Random, data: bytearray) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + random.choice((1, 2, 4, 8, 16, 64, 512)))


def _out(random: Random, data: bytearray) -> bytes:
    start, end = _span(random, data)
    return bytes(data[:start] + data[end:])


def _moved(random: Random, data: bytearray) -> bytes:
    start, end = _span(random, data)
    at = random.randrange(len(data) + 1)
    return bytes(data[:at] + data[start:end] + data[at + random.choice((0, end - start)) :])


def _cut(random: Random, data: bytearray) -> bytes:
    return bytes(data[: random.randrange(len(data) + 1)])


def _text(random: Random, data: bytearray) -> bytes:
    at = random.randrange(len(data) + 1)
    return bytes(data[:at] + random.choice(TEXTS) + data[at + random.choice((0, 1, 8)) :])


_BYTES: list[Callable[[Random, bytearray], bytes]] = [_flip, _flip, _byte, _byte, _fixed, _out, _moved, _cut, _text]


def parsed(data: bytes) -> Parsed | None:
    """A message's fields: number, wire type, value; None if it is none."""
    try:
        return [(n, kind, data[value:end]) for n, kind, _, value, end in fields(data)]
    except CheckpointError:
        return None


def encoded(message: Parsed) -> bytes:
    return b"".join(
        encode_varint(n << 3 | kind) + (encode_varint(len(value)) if kind == LENGTH else b"") + value
        for n, kind, value in message
    )


def changed_message(random: Random, data: bytes, depth: int = 0) -> bytes:
    """A message with one field changed, taken out, doubled, or put in another's place, at any depth.

    The lengths around it are right.
    """
    message = parsed(data)
    if not message or len(message) > 5_000:
        return changed_bytes(random, data)
    at = random.randrange(len(message))
    if depth < 12 and message[at][1] == LENGTH and len(message[at][2]) > 1 and random.random() < 0.8:
        n, kind, value = message[at]
        message[at] = n, kind, changed_message(random, value, depth + 1)
        return encoded(message)
    random.choice(_FIELDS)(random, message, at)
    return encoded(message)


def _value(random: Random, message: Parsed, at: int) -> None:
    n, kind, value = message[at]
    if kind == VARINT:
        value = encode_varint(number(random))
    elif kind == LENGTH:
        value = random.choice(TEXTS) if random.random() < 0.5 else changed_bytes(random, value)
    else:
        value = (number(random) & (1 << 8 * len(value)) - 1).to_bytes(len(value), "little")
    message[at] = n, kind, value


def _gone(random: Random, message: Parsed, at: int) -> None:
    del message[at]


def _twice(random: Random, message: Parsed, at: int) -> None:
    # A large one not often: what takes time in proportion to its size is no finding.
    message[at:at] = [message[at]] * random.choice((1, 1, 1, 2, 200 if len(message[at][2]) < 200 else 3))


def _swapped(random: Random, message: Parsed, at: int) -> None:
    other = random.randrange(len(message))
    message[at], message[other] = message[other], message[at]


def _spread(random: Random, message: Parsed, at: int) -> None:
    """The value of another field, if there is one of the same kind: names are doubled so, and edges become cycles."""
    other = random.choice(message)
    if other[1] == message[at][1]:
        message[at] = *message[at][:2], other[2]


def _renumbered(random: Random, message: Parsed, at: int) -> None:
    _, kind, value = message[at]
    message[at] = random.choice((1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 1000, 2**29 - 1)), kind, value


def _added(random: Random, message: Parsed, at: int) -> None:
    value = encode_varint(number(random))
    kind = random.choice((VARINT, LENGTH))
    message.insert(at, (random.randrange(1, 20), kind, value if kind == VARINT else random.choice(TEXTS)))


def _nested(random: Random, message: Parsed, at: int) -> None:
    n, kind, value = message[at]
    if kind == LENGTH and len(value) < 2000:
        for _ in range(random.choice((1, 10, 100, 500))):
            value = encode_varint(n << 3 | LENGTH) + encode_varint(len(value)) + value
        message[at] = n, kind, value


_FIELDS = [_value, _value, _value, _gone, _twice, _swapped, _spread, _spread, _renumbered, _added, _nested]


def crossed_message(random: Random, data: bytes, other: bytes) -> bytes:
    """A message in which a message of another file stands in the place of one of the same number."""
    mine, theirs = parsed(data), parsed(other)
    if not mine or not theirs:
        return data
    at = random.randrange(len(mine))
    n, kind, value = mine[at]
    fitting = [field for field in theirs if field[:2] == (n, kind)]
    if fitting:
        taken = random.choice(fitting)
        deeper = kind == LENGTH and random.random() < 0.7
        mine[at] = (n, kind, crossed_message(random, value, taken[2])) if deeper else taken
    return encoded(mine)


def changed_json(random: Random, value: Any) -> Any:
    """A JSON value with one of its values changed, taken out or put elsewhere."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        kind = random.random()
        if kind < 0.7:
            return value | {key: changed_json(random, value[key])}
        if kind < 0.8:
            return {k: v for k, v in value.items() if k != key}
        if kind < 0.9:
            return {(_text_value(random) if k == key else k): v for k, v in value.items()}
        return value | {_text_value(random): value[key]}
    if isinstance(value, list) and value and random.random() < 0.9:
        at = random.randrange(len(value))
        kind = random.random()
        if kind < 0.7:
            return [*value[:at], changed_json(random, value[at]), *value[at + 1 :]]
        return value[:at] + value[at + 1 :] if kind < 0.85 else value[: at + 1] + value[at:]
    return _json_value(random, value)


def _text_value(random: Random) -> str:
    return random.choice(TEXTS).decode(errors="surrogateescape" if random.random() < 0.3 else "replace")


def _json_value(random: Random, value: Any) -> Any:
    signed = number(random) * random.choice((1, 1, -1))
    odd: list[Any] = [None, True, 0.5, 1e400, float("nan"), [], {}, "", "F32", signed, signed, [signed], [[0]], value]
    near = value + random.choice((-1, 1, 8)) if isinstance(value, int) else _text_value(random)
    return near if random.random() < 0.4 else random.choice(odd)


def json_bytes(random: Random, value: Any) -> bytes:
    """JSON, now and then as no `json` would write it: a key twice, nested too deep, no UTF-8."""
    data = json.dumps(value).encode()
    kind = random.random()
    if kind < 0.04:
        return data.replace(b"{", b"{" + data[1 : data.find(b"}") + 1] + b",", 1)
    if kind < 0.06:
        return b"[" * 100_000 + data
    if kind < 0.08:
        return data.replace(b'""', b'"\xff"', 1)
    return changed_bytes(random, data) if kind < 0.2 else data
