"""Gives values to a graph's variables, tables and the like, in a session: restored ones, or from their initializers.

Stored values are restored at once: by the graph's own saver or, if that is not possible, by RestoreV2 (which reads both
formats) and an assignment for each variable. What was never stored is initialized when a fetch first needs it.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from threading import RLock
from typing import Any

from ckpttool.analysis.graphs.chance import drawn
from ckpttool.analysis.graphs.needs import needed_ops
from ckpttool.analysis.graphs.pipelines import filled_by, sole_makers
from ckpttool.analysis.graphs.restore_plan import Plan
from ckpttool.analysis.graphs.running import read_variables, require_fed, written_variables
from ckpttool.analysis.graphs.savers import Restored
from ckpttool.analysis.graphs.tables import fillers
from ckpttool.errors import NotFoundError, NotSupportedError
from ckpttool.formats.locate import Located
from ckpttool.model.graph import MetaGraph
from ckpttool.model.names import listed, such
from ckpttool.model.nodes import VARIABLE_OPS, op_of
from ckpttool.model.texts import to_bytes
from ckpttool.transforms.preparing.lacking import HERE

_V1_SHARD = re.compile(r"-[0-9]{5,9}(-of-[0-9]{5,9})$")


def prefix_of(located: Located) -> str:
    """The checkpoint's prefix as TensorFlow takes it: for several files of V1, their pattern."""
    return _V1_SHARD.sub(r"-?????\1", located.v1_files[0]) if located.v1_files else located.prefix


def require_restorable(located: Located) -> None:
    """Raises NotSupportedError for a path that TensorFlow takes for a pattern, which does not match the path itself."""
    prefix = prefix_of(located)
    if "[" in prefix or "\\" in prefix:
        what = "TensorFlow takes [ and \\ in a path for a pattern, and does not find such a checkpoint"
        hint = "rename its files; or, if a directory is named so, run it from inside"
        raise NotSupportedError(what, path=prefix, hint=hint)


def add_restore_op(tensorflow: Any, graph: Any, prefix: str, reads: Iterable[Restored]) -> Any:
    """Adds to the graph the op that reads these values and assigns them; None if there are none."""
    reads = list(reads)
    if not reads:
        return None
    with graph.as_default(), tensorflow.device("/cpu:0"):
        values = tensorflow.raw_ops.RestoreV2(
            prefix=prefix,
            tensor_names=[to_bytes(read.key) for read in reads],
            shape_and_slices=[read.slice_spec for read in reads],
            dtypes=[read.dtype.base.number for read in reads if read.dtype],
        )
        pairs = zip(reads, values, strict=True)
        return tensorflow.group(*(_assigned(tensorflow, graph, read.variable, value) for read, value in pairs))


def _assigned(tensorflow: Any, graph: Any, variable: str, value: Any) -> Any:
    target = graph.get_tensor_by_name(f"{variable}:0")
    if target.dtype == tensorflow.resource:
        return tensorflow.raw_ops.AssignVariableOp(resource=target, value=value)
    return tensorflow.raw_ops.Assign(ref=target, value=value, validate_shape=False).op


def asset_feeds(graph: MetaGraph) -> dict[str, str]:
    """Tensor with the path of a SavedModel's asset file → where that file is."""
    folder = os.path.join(os.path.dirname(graph.path), "assets")
    for file in graph.assets.values():
        if os.path.isabs(file) or ".." in file.split("/"):
            raise NotSupportedError(f"the asset {file!r} is outside of the SavedModel", path=graph.path)
    return {tensor: os.path.join(folder, file) for tensor, file in graph.assets.items()}


class State:
    """Which parts of a graph's state have their values, and how the rest gets them.

    Attributes:
        notes: what was initialized, in words; more are added.
        warnings: what has random values, in words.
        filled: the queues and iterators that something was put into.

    Args:
        graph: the graph.
        plan: how its variables are restored.
        lacking: the ops that can't run, each with the reason.
        run: runs an op, by its name.
        resuming: iterators, each with what restores its state once it has its data.
    """

    def __init__(
        self,
        graph: MetaGraph,
        plan: Plan,
        lacking: Mapping[str, str],
        run: Callable[[str], None],
        resuming: Mapping[str, Callable[[], None]],
    ) -> None:
        self._graph, self._nodes, self._lacking, self._run = graph, graph.by_name, lacking, run
        self._unset, self._missing = set(plan.unstored), dict(plan.missing)
        self._done: set[str] = set()
        self._makers, self._resuming = sole_makers(self._nodes), resuming
        self.filled: set[str] = set()
        self._lock = RLock()
        self._fillers = fillers(graph)
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def ran(self, ops: Iterable[str]) -> None:
        """Records that these ops were run: what they write has its values."""
        ops = set(ops)
        written = written_variables(self._nodes, ops)
        self._unset -= written
        for variable in written:
            self._missing.pop(variable, None)
        self._done |= ops
        self.filled |= filled_by(self._nodes, ops)

    def require(
        self, wanted: Iterable[str], fed: Iterable[str] = (), keys: Mapping[str, str] | None = None
    ) -> set[str]:
        """Makes sure that tensors can be computed: initializes what they need, or refuses with the reason.

        Args:
            wanted: names of tensors or ops.
            fed: full names of tensors that are given.
            keys: other name of an input → name of the tensor.

        Returns:
            The ops that will run.

        Raises:
            NotSupportedError: an op that is needed can't run here.
            NotFoundError: a variable that is needed has no stored value.
            ValueError: a placeholder that is needed is not fed, or an input pipeline has no data.
        """
        wanted, fed = list(wanted), set(fed)
        ops = needed_ops(self._nodes, wanted, fed)
        self._require_known(ops)
        require_fed(self._nodes, ops, fed, keys, self.filled | self._makers.keys())
        fetched = {op_of(text) for text in wanted} & ops
        variables = read_variables(self._nodes, ops, fed)
        variables |= {op for op in fetched if self._nodes[op].type in VARIABLE_OPS}
        missing = sorted(variables & self._missing.keys())
        if missing:
            raise NotFoundError(f"{self._missing[missing[0]]}{such(len(missing))}", path=self._graph.path)
        with self._lock:
            self._initialize(variables & self._unset, ops)
        return ops

    def _require_known(self, ops: Iterable[str]) -> None:
        found = sorted(op for op in ops if op in self._lacking)
        if found:
            op = found[0]
            library = "--op-library loads ops and kernels; or " if HERE in self._lacking[op] else ""
            why = f"{self._lacking[op]}{such(len(found), 'ops')}"
            raise NotSupportedError(
                f"{op} is needed, an op of type {self._nodes[op].type}, and can't run: {why}",
                path=self._graph.path,
                hint=f"{library}feed {op}:0",
            )

    def _initialize(self, variables: set[str], ops: set[str]) -> None:
        initializers = [self._initializer(variable) for variable in sorted(variables)]
        tables = {name: op for op in sorted(ops) for name in self._fillers.get(op, ()) if name not in self._done}
        unmade = sorted(op for op in ops & self._makers.keys() - self.filled if self._makers[op] not in ops)
        makers = {self._makers[op]: op for op in unmade}
        self._unset -= variables  # Beforehand, for an initializer may read what it writes.
        try:
            for name in [*initializers, *tables]:
                self._run_once(name)
            for name, iterator in makers.items():
                self._start(iterator, name)
        except BaseException:
            self._unset |= variables - written_variables(self._nodes, self._done)
            raise
        by_chance = {name for name in variables if drawn(self._graph, [self._initializer(name)])}
        if by_chance:
            what = "variables have random values, other ones at each run, because none were stored"
            self.warnings.append(f"{what}: {listed(sorted(by_chance))}")
        if variables - by_chance:
            self.notes.append(f"initialized, because they were never stored: {listed(sorted(variables - by_chance))}")
        if tables:
            self.notes.append(f"initialized tables: {listed(list(dict.fromkeys(tables.values())))}")
        resumed = [iterator for iterator in makers.values() if iterator in self._resuming]
        if resumed:
            self.notes.append(f"restored iterators: {listed(resumed)}")
        if len(makers) > len(resumed):
            anew = [iterator for iterator in makers.values() if iterator not in self._resuming]
            self.notes.append(f"initialized iterators: {listed(anew)}")

    def _start(self, iterator: str, maker: str) -> None:
        """Gives an iterator its data, and its state if that is stored."""
        self._run_once(maker)
        try:
            self._resuming.get(iterator, lambda: None)()
        except BaseException:  # The iterator is at its beginning, not where its state says: it counts as not filled.
            self._done.discard(maker)
            self.filled.discard(iterator)
            raise

    def _run_once(self, name: str) -> None:
        if name in self._done:
            return
        self._done.add(name)  # Beforehand, for it may need something that needs it.
        try:
            needed = self.require([name])
            self._run(name)
        except BaseException:
            self._done.discard(name)
            raise
        self.ran(needed)

    def _initializer(self, variable: str) -> str:
        """The op that gives a variable its first value."""
        for _, declared in self._graph.variable_defs.get(variable, ()):
            return op_of(declared.get("initializer_name", f"{variable}/Assign"))
        if f"{variable}/Assign" in self._nodes:
            return f"{variable}/Assign"
        raise NotFoundError("it has no stored value and no initializer", variable=variable, path=self._graph.path)
