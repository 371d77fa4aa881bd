"""The dtypes of an op's inputs or outputs, by the OpDef that describes it.

No list is made as long as a number in a file says: what it stands for is counted, and made when asked for.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from typing import Any, NamedTuple, overload

from ckpttool.model.dtypes import REF_OFFSET, DType, dtype_of

Shape = tuple[int | None, ...] | None
"""A shape as far as it is known: None in it for an unknown dimension, None for it if even the rank is unknown."""

# No op has more arguments, each of which may be a list of tensors.
_MOST_ARGUMENTS = 256
_MOST_TENSORS = 1 << 31
_SHOWN = 8


def agrees(declared: Shape, shape: Sequence[int]) -> bool:
    """Whether a shape agrees with what was declared."""
    return declared is None or (
        len(declared) == len(shape) and all(size in (None, n) for size, n in zip(declared, shape, strict=True))
    )


def shape_text(shape: Shape) -> str:
    """A shape as messages have it: [?,10]; nothing if not even the rank is known."""
    return "" if shape is None else f"[{','.join('?' if size is None else str(size) for size in shape)}]"


class Tensor(NamedTuple):
    """An output of an op: its dtype (None: not known) and as much as is known of its shape."""

    dtype: DType | None
    shape: Shape


class Argument(NamedTuple):
    """What an OpDef.ArgDef says: a dtype (0: none), or the attributes that hold it, with their defaults."""

    dtype: int
    is_ref: bool
    type_attr: str
    number_attr: str
    list_attr: str
    defaults: Mapping[str, Any]


def arguments_of(arguments: Iterable[Any], definitions: Iterable[Any]) -> list[Argument]:
    """The arguments on one side of an OpDef, by its ArgDefs; AttrDefs have the defaults, which a graph may omit."""
    defaults = {each.name: each.default_value for each in definitions if each.HasField("default_value")}
    return [
        Argument(arg.type, arg.is_ref, arg.type_attr, arg.number_attr, arg.type_list_attr, defaults)
        for arg in islice(arguments, _MOST_ARGUMENTS)
    ]


class Dtypes:
    """The dtypes that arguments stand for, given a node's attributes: each for one, several or none."""

    def __init__(self, arguments: Iterable[Argument], attr: Mapping[str, Any]) -> None:
        self._runs = [_run(argument, attr) for argument in arguments]
        self._ends = list(accumulate(count for count, _ in self._runs))
        self._size = min(self._ends[-1], _MOST_TENSORS) if self._ends else 0

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, number: int) -> DType | None:
        if not 0 <= number < self._size:
            raise IndexError(number)
        run = bisect_right(self._ends, number)
        count, numbers = self._runs[run]
        stored = numbers[number - self._ends[run] + count if len(numbers) > 1 else 0]
        return dtype_of(stored) if stored else None

    def __iter__(self) -> Iterator[DType | None]:
        return (self[number] for number in range(self._size))


def _run(argument: Argument, attr: Mapping[str, Any]) -> tuple[int, Sequence[int]]:
    """How many tensors an argument stands for, and their dtypes (0: not known), or the one that all have."""
    dtype, is_ref, type_attr, number_attr, list_attr, defaults = argument
    if list_attr:
        listed = attr[list_attr] if list_attr in attr else defaults.get(list_attr)
        types: Sequence[int] = (0,) if listed is None else listed.list.type
        return len(types), types
    if type_attr:
        typed = attr[type_attr] if type_attr in attr else defaults.get(type_attr)
        dtype = dtype if typed is None else typed.type
    count = 1
    if number_attr:
        counted = attr[number_attr] if number_attr in attr else defaults.get(number_attr)
        count = 1 if counted is None else max(counted.i, 0)
    return count, (dtype + REF_OFFSET if is_ref and dtype else dtype,)


def get_shape(message: Any) -> Shape:
    """The shape in a TensorShapeProto."""
    if message.unknown_rank:
        return None
    return tuple(dim.size if dim.size >= 0 else None for dim in message.dim)


class Outputs(Sequence[Tensor]):
    """An op's outputs, in order.

    Args:
        dtypes: their dtypes.
        shapes: the TensorShapeProtos that the op lists; if it lists none, all have the shape `declared`. Each is read
            when its output is asked for: an op may have thousands.
        declared: the shape that the op declares.
    """

    def __init__(self, dtypes: Dtypes | Sequence[DType | None], shapes: Sequence[Any], declared: Shape) -> None:
        self._dtypes, self._shapes, self._declared = dtypes, shapes, declared

    def __repr__(self) -> str:
        shown = [repr(tensor) for tensor in islice(self, _SHOWN)]
        return f"Outputs([{', '.join(shown)}{f', … {len(self):,} in all' if len(self) > _SHOWN else ''}])"

    def __len__(self) -> int:
        return len(self._dtypes)

    @overload
    def __getitem__(self, number: int) -> Tensor: ...

    @overload
    def __getitem__(self, number: slice) -> list[Tensor]: ...

    def __getitem__(self, number: int | slice) -> Tensor | list[Tensor]:
        if isinstance(number, slice):
            return [self._tensor(place) for place in range(len(self))[number]]
        return self._tensor(range(len(self))[number])

    def __iter__(self) -> Iterator[Tensor]:
        return map(self._tensor, range(len(self)))

    def _tensor(self, number: int) -> Tensor:
        if not self._shapes:
            return Tensor(self._dtypes[number], self._declared)
        return Tensor(self._dtypes[number], get_shape(self._shapes[number]) if number < len(self._shapes) else None)
