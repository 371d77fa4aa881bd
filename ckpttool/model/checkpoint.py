"""A checkpoint: variables by their names, and what stands beside them."""

from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from functools import cached_property, partial
from operator import ne
from typing import TypeVar, overload

from ckpttool.errors import CheckpointError, NotFoundError, located
from ckpttool.model.layer import OF_OPTIMIZER
from ckpttool.model.names import choices_hint, counted
from ckpttool.model.object_graph import ObjectGraph
from ckpttool.model.object_keys import OBJECT_GRAPH_KEY, VALUE, Place
from ckpttool.model.variable import Variable

_T = TypeVar("_T")


class Checkpoint(Mapping[str, Variable]):
    """The variables of a checkpoint, by name, in the checkpoint's order.

    A variable given under a name that is not its own is renamed.

    Raises:
        TypeError: something else is given than variables, such as arrays.

    Attributes:
        path: what was opened: for a bundle, its prefix.
        files: the files it is read from, which no output may replace.
        format: the format in words.
        warnings: what is wrong with it, though it can be listed.
        metadata: texts by name that its writer added, in a format that has them: safetensors.
    """

    def __init__(
        self,
        variables: Mapping[str, Variable],
        *,
        path: str,
        format: str,
        files: Sequence[str] = (),
        warnings: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        try:
            are_renamed = any(map(ne, variables, (variable.name for variable in variables.values())))
        except AttributeError:  # To look at each, of a million, would take longer.
            kind = next(type(each).__name__ for each in variables.values() if not isinstance(each, Variable))
            raise TypeError(f"a Variable is needed, not {kind}: from_arrays makes a checkpoint of arrays") from None
        if are_renamed:
            variables = {name: variable.renamed(name) for name, variable in variables.items()}
        self._variables, self.path, self.format = variables, path, format
        self.files, self.warnings, self.metadata = tuple(files), tuple(warnings), metadata or {}

    def with_variables(self, variables: Mapping[str, Variable]) -> "Checkpoint":
        """The same checkpoint with other variables."""
        return Checkpoint(
            variables,
            path=self.path,
            format=self.format,
            files=self.files,
            warnings=self.warnings,
            metadata=self.metadata,
        )

    def __or__(self, other: "Checkpoint") -> "Checkpoint":
        """The variables of both (of the same name, the other's) and the files of both, which no output may replace."""
        if not isinstance(other, Checkpoint):
            return NotImplemented
        return Checkpoint(
            {**self, **other},
            path=self.path,
            format=self.format,
            files=(*self.files, *other.files),
            warnings=(*self.warnings, *other.warnings),
            metadata=self.metadata,
        )

    @cached_property
    def object_graph(self) -> ObjectGraph | None:
        """The objects that the variables belonged to; None for a checkpoint of TensorFlow 1, which has none.

        Raises:
            CorruptionError: it is damaged, or its data file is missing.
        """
        variable = self._variables.get(OBJECT_GRAPH_KEY)
        if variable is None or variable.dtype.name != "string" or variable.shape != ():
            return None
        with located(self.path, variable.name):
            return ObjectGraph(variable.strings()[0])

    @cached_property
    def readable_object_graph(self) -> ObjectGraph | None:
        """`object_graph`; None also where it can't be read."""
        try:
            return self.object_graph
        except (CheckpointError, OSError):
            return None

    @cached_property
    def of_optimizers(self) -> frozenset[str]:
        """The variables that the source says are an optimizer's, as Keras' HDF5 of whole models does."""
        return frozenset(name for name, variable in self._variables.items() if variable.layer is OF_OPTIMIZER)

    @cached_property
    def places(self) -> Mapping[str, Place]:
        """The object that each key of TensorFlow 2 comes from; empty where no object graph can be read."""
        graph = self.readable_object_graph
        return {} if graph is None else graph.places(self)

    @cached_property
    def _keys_by_path(self) -> Mapping[str, list[str]]:
        """TensorFlow 2's keys by the paths of their objects."""
        return _grouped((place.path, key) for key, place in self.places.items())

    @cached_property
    def _keys_by_full_name(self) -> Mapping[str, list[str]]:
        """TensorFlow 2's keys by TensorFlow 1's names of the variables."""
        return _grouped((place.full_name, key) for key, place in self.places.items())

    def stored_as(self, name: str) -> str:
        """The key of what a TensorFlow 1 saver calls `name`: that name or, in a checkpoint of objects, the key of the
        variable that had it.

        (tensorflow/python/training/saver.py: Saver.restore, object_graph_key_mapping)
        """
        keys = self._keys_by_full_name.get(name, ()) if name and name not in self._variables else ()
        return keys[0] if len(keys) == 1 else name  # Where several variables have the name, it tells none.

    def keys_of(self, name: str) -> list[str]:
        """The keys under which TensorFlow 2 stored a variable, given a path to its object, its TensorFlow 1 name, or
        the key without its end.
        """
        if not isinstance(name, str):
            return []
        if name + VALUE in self._variables:
            return [name + VALUE]
        graph, path = self.object_graph if self.places else None, name
        node = None if graph is None else graph.node_at(name)
        if graph is not None and node is not None:
            path = graph.readable_paths.get(node, name)  # An object may have several; one is told.
        return self._keys_by_path.get(path) or self._keys_by_full_name.get(name, [])

    def __getitem__(self, name: str) -> Variable:
        try:
            return self._variables[name]
        except KeyError:
            keys = self.keys_of(name)
            hint: str | Callable[[], str] | None = f"it is stored as {', '.join(keys)}" if keys else None
            if hint is None and isinstance(name, str):
                # Who catches KeyErrors, as of any mapping, does not wait for the near ones of a million names.
                hint = partial(choices_hint, name, self._variables)
            raise NotFoundError(f"Key {name} not found in checkpoint", path=self.path, hint=hint) from None

    @overload
    def get(self, name: str, /) -> Variable | None: ...

    @overload
    def get(self, name: str, /, default: Variable | _T) -> Variable | _T: ...

    def get(self, name: str, /, default: object = None) -> object:
        """The variable, or `default`, without the search for near names that an error's hint takes."""
        return self._variables.get(name, default)

    def values(self) -> ValuesView[Variable]:
        return self._variables.values()

    def items(self) -> ItemsView[str, Variable]:
        return self._variables.items()

    def __contains__(self, name: object) -> bool:
        return name in self._variables

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __repr__(self) -> str:
        return f"Checkpoint({self.path!r}, {self.format}, {counted(len(self), 'variable')})"


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, key in pairs:
        found.setdefault(name, []).append(key)
    return found


def require_checkpoint(checkpoint: object) -> None:
    """Raises TypeError if something else was given, such as a path or a dict of arrays."""
    if not isinstance(checkpoint, Checkpoint):
        opened = "open_checkpoint opens one, from_arrays makes one of a dict of arrays"
        raise TypeError(f"a Checkpoint is needed, not {type(checkpoint).__name__}: {opened}")
