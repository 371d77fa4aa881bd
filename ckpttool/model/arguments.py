"""The dtypes of an op's inputs or outputs, by the OpDef that describes it.

A number in a file is no reason to make a list as long: what it stands for is counted, and made when it is asked for.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from typing import Any, NamedTuple, overload

from ckpttool.model.dtypes import REF_OFFSET, DType, dtype_of

Shape = tuple[int | None, ...] | None
"""A shape as far as it is known: None for an unknown dimension, or for an unknown rank."""

# No op has as many arguments, each of which may be a list of tensors.
_MOST_ARGUMENTS = 256
_MOST_TENSORS = 1 << 31


class Tensor(NamedTuple):
    """An output of an op: its dtype (None: not known) and as much as is known of its shape."""

    dtype: DType | None
    shape: Shape


class Dtypes:
    """The dtypes that OpDef.ArgDefs stand for, given a node's attributes: of each one, or several, or none.

    Args:
        arguments: the ArgDefs.
        attr: the attributes.
        definitions: the OpDef's AttrDefs: a graph may leave out what is the default.
    """

    def __init__(self, arguments: Iterable[Any], attr: Mapping[str, Any], definitions: Iterable[Any]) -> None:
        def value(name: str) -> Any:
            return attr[name] if name in attr else _default(name, definitions)

        self._runs = [_run(argument, value) for argument in islice(arguments, _MOST_ARGUMENTS)]
        self._ends = list(accumulate(count for count, _ in self._runs))

    def __len__(self) -> int:
        return min(self._ends[-1], _MOST_TENSORS) if self._ends else 0

    def __getitem__(self, number: int) -> DType | None:
        if not 0 <= number < len(self):
            raise IndexError(number)
        run = bisect_right(self._ends, number)
        count, numbers = self._runs[run]
        stored = numbers[number - self._ends[run] + count if len(numbers) > 1 else 0]
        return dtype_of(stored) if stored else None

    def __iter__(self) -> Iterator[DType | None]:
        return (self[number] for number in range(len(self)))


def _default(name: str, definitions: Iterable[Any]) -> Any:
    """The AttrValue that an attribute has if a node has none; None if there is no such default."""
    found = (each.default_value for each in definitions if each.name == name and each.HasField("default_value"))
    return next(found, None)


def _run(argument: Any, value: Callable[[str], Any]) -> tuple[int, Sequence[int]]:
    """How many tensors an ArgDef stands for, and their dtypes (0: not known), or the one of them all."""
    if argument.type_list_attr:
        listed = value(argument.type_list_attr)
        types: Sequence[int] = (0,) if listed is None else listed.list.type
        return len(types), types
    typed = value(argument.type_attr) if argument.type_attr else None
    number = argument.type if typed is None else typed.type
    counted = value(argument.number_attr) if argument.number_attr else None
    count = 1 if counted is None else max(counted.i, 0)
    return count, (number + REF_OFFSET if argument.is_ref and number else number,)


class Outputs(Sequence[Tensor]):
    """An op's outputs, in order.

    Args:
        dtypes: their dtypes.
        shapes: their shapes, as far as the op lists them; none: all have the one that it declares.
        declared: that shape.
    """

    def __init__(self, dtypes: Dtypes | Sequence[DType | None], shapes: Sequence[Shape], declared: Shape) -> None:
        self._dtypes, self._shapes, self._declared = dtypes, shapes, declared

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

    def _tensor(self, number: int) -> Tensor:
        if not self._shapes:
            return Tensor(self._dtypes[number], self._declared)
        return Tensor(self._dtypes[number], self._shapes[number] if number < len(self._shapes) else None)
