"""A saved graph in a graph and a session of its own."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from threading import Lock
from types import TracebackType
from typing import Any, NoReturn

from ckpttool.analysis.graphs import fetches as choosing
from ckpttool.analysis.graphs.endpoints import Endpoint, endpoints
from ckpttool.analysis.graphs.fitting import fit
from ckpttool.analysis.graphs.initializers import main_ops
from ckpttool.analysis.graphs.needs import needed_ops, require_collection
from ckpttool.analysis.graphs.pipelines import iterator_makers
from ckpttool.analysis.graphs.restore_plan import plan_restore
from ckpttool.analysis.graphs.running import waiting
from ckpttool.analysis.graphs.savers import restored_iterators, saver_ops
from ckpttool.errors import NotFoundError, NotSupportedError
from ckpttool.formats.locate import Located, locate
from ckpttool.formats.opening import open_checkpoint, open_graph
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.dtypes import dtype_of
from ckpttool.model.graph import MetaGraph
from ckpttool.model.names import counted, listed
from ckpttool.model.nodes import VARIABLE_OPS, Node, op_of, require_name, split_tensor
from ckpttool.model.signatures import Signature
from ckpttool.runtime import state
from ckpttool.runtime.importing import Interruptible, Translated, imported
from ckpttool.runtime.quiet import import_tensorflow
from ckpttool.runtime.registry import InstalledRegistry, load_op_library
from ckpttool.transforms.preparing import prepare
from ckpttool.transforms.restoring import without_iterators

# Seconds that a run may take if it may wait for an empty queue.
_PATIENCE = 60.0


class ImportedGraph:
    """A saved graph with its values, ready to run: `.meta` and checkpoint, SavedModel, or frozen graph.

        >>> with ckpttool.ImportedGraph("model.ckpt") as model:
        ...     model.run("activation_opt", {"x": [50]})
        array([124.], dtype=float32)

    It has a graph and a session of its own, so that several live side by side, whatever their ops are called.
    Threads may run one at the same time. The first one in a process imports TensorFlow, which takes seconds.

    Attributes:
        path: the file of the graph.
        graph: the graph as ckpttool reads it: collections, signatures, ops.
        lacking: the ops that can't run here, each with the reason; what does not need them runs.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Located,
        *,
        checkpoint: str | os.PathLike[str] | Located | None = None,
        tags: str | None = None,
        clear_devices: bool = True,
        op_libraries: Sequence[str] = (),
    ) -> None:
        """Imports the graph, restores the variables, and runs what a SavedModel wants to be run.

        Args:
            path: what leads to a graph, as for `open_graph`.
            checkpoint: the variables' values, in a checkpoint of TensorFlow's; None: what stands beside the graph.
            tags: of a SavedModel with several graphs, the tags of the one to take.
            clear_devices: run on whatever devices are here.
            op_libraries: shared libraries with ops and kernels, loaded into this process.

        Raises:
            NotSupportedError: TensorFlow is not installed, or can't import the graph.
            NotFoundError, FormatError, CorruptionError: as `open_graph` and `open_checkpoint`.
        """
        beside = path if isinstance(path, Located) else locate(path)
        self.graph: MetaGraph = open_graph(beside, tags=tags)
        self.path = self.graph.path
        self._nodes = self.graph.by_name
        self._iterators = iterator_makers(self._nodes)
        located, values = _values(beside, checkpoint)
        self._tf: Any = import_tensorflow()
        for library in [op_libraries] if isinstance(op_libraries, str | os.PathLike) else op_libraries:
            load_op_library(self._tf, library)
        restoring = without_iterators(self.graph)
        prepared = prepare(restoring, InstalledRegistry(self._tf), clear_devices=clear_devices)
        self.lacking: Mapping[str, str] = prepared.lacking
        self._tf_graph, self._notes = imported(self._tf, self.path, prepared)
        self._ready: set[tuple[tuple[str, ...], frozenset[str]]] = set()
        self._lock, self._interruptible = Lock(), Interruptible()
        config = self._tf.compat.v1.ConfigProto(allow_soft_placement=True)
        config.gpu_options.allow_growth = True
        self._session: Any = self._tf.compat.v1.Session(graph=self._tf_graph, config=config)
        try:
            self._restore(located, values)
        except BaseException:
            self.close()
            raise

    def _restore(self, located: Located, checkpoint: Checkpoint | None) -> None:
        saver = self.graph.message.saver_def
        usable = not any(op in self.lacking for op in saver_ops(self.graph))
        plan = plan_restore(self.graph, checkpoint, usable=usable)
        self._notes += plan.notes
        prefix = state.prefix_of(located)
        feeds = {saver.filename_tensor_name: prefix}
        resuming = {}
        if plan.by_saver and checkpoint is not None:
            for iterator, (op, key) in restored_iterators(self.graph).items():
                # A state has one dimension since TensorFlow 2.2: to restore one without ends the process.
                if len(checkpoint[key].shape) == 1:
                    resuming[iterator] = partial(self._run_op, op, feeds)
        self._state = state.State(self.graph, plan, self.lacking, self._run_op, resuming)
        if plan.by_saver:
            self._run_op(saver.restore_op_name, feeds)
        else:
            restore_op = state.add_restore_op(self._tf, self._tf_graph, prefix, plan.reads)
            if restore_op is not None:
                self._run_op(restore_op.name)
        self._add_collections()
        self._tf_graph.finalize()
        self._run_main_ops()

    def _add_collections(self) -> None:
        """Adds what the collections name to those of the tf.Graph, for `tf_graph.get_collection`."""
        for collection in self.graph.collections.values():
            for name in collection.members if collection.kind == "node_list" else ():
                # A name of something that is no longer there. Of an op that is gone, the error would look for near
                # names, which is slow for many.
                if name not in self._nodes and op_of(name) not in self._nodes:
                    continue
                with suppress(NotFoundError):
                    element = self.operation(name) if name in self._nodes else self.tensor(name)
                    self._tf_graph.add_to_collection(collection.name, element)

    def _run_main_ops(self) -> None:
        assets = state.asset_feeds(self.graph)
        for name in main_ops(self.graph):
            ops = needed_ops(self._nodes, [name], assets)
            stopped = next((op for op in sorted(ops) if op in self.lacking), None)
            if stopped is not None:
                self._notes.append(f"did not run {name}: {self.lacking[stopped]}")
                continue
            self._state.ran(ops)
            self._run_op(name, assets)

    def _run_op(self, name: str, feeds: Mapping[str, Any] | None = None) -> None:
        session = self._open_session()
        op = session.graph.get_operation_by_name(op_of(name))
        with Translated(self._tf, self.path):
            self._interruptible(lambda: session.run(op, feeds))

    def __enter__(self) -> "ImportedGraph":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._session is None else f"{len(self._nodes):,} ops"
        return f"ImportedGraph({self.path!r}, {state})"

    def close(self) -> None:
        """Ends the session and lets the graph go; may be called again."""
        with self._lock:
            session, self._session, self._tf_graph = self._session, None, None
        if session is not None:
            session.close()
            self._interruptible.settle()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a graph that is imported has a session, and can't be copied or pickled: import it again")

    def _open_session(self) -> Any:
        session = self._session
        if session is None:
            raise ValueError(f"the graph is closed · {self.path}")
        return session

    @property
    def session(self) -> Any:
        """The tf.compat.v1.Session."""
        return self._open_session()

    @property
    def tf_graph(self) -> Any:
        """The tf.Graph, which is finalized. Its collections have the ops and tensors that are in the graph's."""
        return self._open_session().graph

    @property
    def notes(self) -> tuple[str, ...]:
        """What was mended, left out or initialized, in words."""
        kinds = sorted({self._nodes[op].type for op in self.lacking})
        left_out = f"left out {counted(len(self.lacking), 'op')} that can't run here: {listed(kinds, 8)}"
        return (*([left_out] if kinds else []), *self._notes, *self._state.notes)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes results doubtful, in words: variables that have random values."""
        return tuple(self._state.warnings)

    @property
    def signatures(self) -> dict[str, Signature]:
        """The signatures, by their keys."""
        return self.graph.signatures

    @property
    def inputs(self) -> list[Endpoint]:
        """What to feed: as the signatures say, or as it is inferred, with the reason."""
        return [endpoint for endpoint in endpoints(self.graph) if endpoint.direction == "input"]

    @property
    def outputs(self) -> list[Endpoint]:
        """What to fetch, as `inputs`."""
        return [endpoint for endpoint in endpoints(self.graph) if endpoint.direction == "output"]

    def operation(self, name: str) -> Any:
        """The tf.Operation of that name.

        Raises:
            TypeError: that is no name.
            NotFoundError: there is none; near names are offered.
        """
        require_name(name)
        op = op_of(choosing.full_name(self.graph, name))
        return self.tf_graph.get_operation_by_name(op)

    def tensor(self, name: str) -> Any:
        """The tf.Tensor of that name; an op's name is that of its first output.

        Raises:
            TypeError: that is no name.
            NotFoundError: there is none; near names are offered.
        """
        require_name(name)
        op, index = split_tensor(choosing.full_name(self.graph, name))
        outputs = self.tf_graph.get_operation_by_name(op).outputs
        if int(index) >= len(outputs):
            count = counted(len(outputs), "output")
            raise NotFoundError(f"there is no tensor {op}:{index}: the op has {count}", path=self.path)
        return outputs[int(index)]

    def collection(self, name: str) -> list[Any]:
        """The members of a collection: tf.Tensors and tf.Operations; for a variable, the tensor of its value.

        Whatever else was put into it is given as it is stored.

        Raises:
            NotFoundError: there is no such collection; near names are offered.
        """
        require_collection(self.graph, name)
        return [self._member(member) for member in self.graph.collections[name].members]

    def _member(self, member: Any) -> Any:
        text = choosing.member_name(member)
        if text in self._nodes:
            return self.operation(text)
        if op_of(text) not in self._nodes:
            return member
        tensor = self.tensor(text)
        if tensor.op.type in VARIABLE_OPS:
            with suppress(NotSupportedError):  # Nothing reads it: it is given as it is.
                return self._value(tensor)
        return tensor

    def run(
        self,
        fetches: Any = None,
        feeds: Mapping[Any, Any] | None = None,
        *,
        signature: str | None = None,
        batch_dim: bool = False,
        broadcast: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """The values of tensors.

            >>> model.run("activation_opt:0", {"x": [50]})
            >>> model.run(["logits", "probabilities"], {"images": batch, "training": False})
            >>> model.run(signature="serving_default", feeds={"images": batch})

        Args:
            fetches: a name (of a tensor; of an op: its first output; or a key of the signature's outputs), a tf.Tensor
                or tf.Operation, a Node of `graph`, or a list or dict of these. None: the outputs of the signature, else
                of the one collection that is the user's, else what is inferred.
            feeds: values, by the names of ops or tensors, by keys of the signature's inputs, or by tf.Tensors. They are
                cast to the dtype that is taken, if nothing is lost by that, and must have the shape.
            signature: the signature whose outputs are fetched, and whose keys count as names; None: the default one's
                keys do, where no op has that name.
            batch_dim: add a dimension of 1 in front of a value that lacks just that.
            broadcast: fill the shape that is taken with a scalar.
            timeout: seconds after which to give up; None: never, or a minute where the run may wait for an empty queue.

        Returns:
            What the session gives: for a name a value, for a list a list, for a dict a dict; for None a dict by the
            keys of the signature or the names of the tensors.

        Raises:
            NotFoundError: there is no such fetch or feed (near names are offered), or no stored value for a variable.
            NotSupportedError: an op that is needed can't run here; or TensorFlow failed to run, or took too long.
            ValueError: a value is of another dtype or shape; a tensor or op is of another graph; a placeholder is not
                fed, or an iterator has no data; the graph is closed.
            TypeError: something given as a fetch is no name, tensor or op; or `feeds` is no mapping.
        """
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout is {timeout}, and must be more than no time; None: never")
        if not isinstance(feeds, Mapping | None):
            raise TypeError(f"feeds is a mapping of names to values, not {feeds!r}")
        session = self._open_session()
        if fetches is None or signature is not None:
            choice = choosing.choice_of(self.graph, signature)
            fetches = {fetch.label: fetch.tensor for fetch in choice.fetches} if fetches is None else fetches
            signature = choice.signature
        wanted = self._elements(fetches, signature or "")
        fed = self._fed(feeds or {}, signature or "", batch_dim=batch_dim, broadcast=broadcast)
        ops, may_wait = self._require(wanted, fed, signature or "")
        seconds = _PATIENCE if timeout is None and may_wait else timeout
        options = self._tf.compat.v1.RunOptions(timeout_in_ms=max(1, int(seconds * 1000))) if seconds else None
        with Translated(self._tf, self.path, seconds):
            values = self._interruptible(lambda: session.run(wanted, fed, options))
        self._state.ran(ops)
        return values

    def _elements(self, fetches: Any, signature: str) -> Any:
        """The fetches with tensors and operations in place of names, which may be keys of the signature's outputs."""
        if isinstance(fetches, Node):  # Looked for first, since it is a tuple too.
            fetches = fetches.name
        if isinstance(fetches, Mapping):
            return {key: self._elements(value, signature) for key, value in fetches.items()}
        if isinstance(fetches, Sequence) and not isinstance(fetches, str | bytes):
            return [self._elements(value, signature) for value in fetches]
        if isinstance(fetches, str):
            name = choosing.output_of(self.graph, fetches, signature) or fetches
            element = self.operation(name) if name in self._nodes else None
            return element if element is not None and not element.outputs else self._value(self.tensor(name))
        self._require_own(fetches)
        if isinstance(fetches, self._tf.Operation):
            return fetches
        if self._tf.is_tensor(fetches):
            return self._value(fetches)
        raise TypeError(f"a fetch is a name, a tensor or an op, or a list or dict of these, not {fetches!r}")

    def _require_own(self, element: Any) -> None:
        """Raises ValueError for a tensor or op of another graph: its name would be taken for one of this graph."""
        if getattr(element, "graph", self.tf_graph) is not self.tf_graph:
            raise ValueError(f"{getattr(element, 'name', element)} is of another graph · {self.path}")

    def _value(self, tensor: Any) -> Any:
        """The tensor; for the handle of a variable, that of its value."""
        if getattr(tensor, "dtype", None) != self._tf.resource:
            return tensor
        return self.tensor(choosing.value_name(self.graph, tensor.name))

    def _fed(self, feeds: Mapping[Any, Any], signature: str, *, batch_dim: bool, broadcast: bool) -> dict[Any, Any]:
        values = {str(getattr(key, "name", key)): value for key, value in feeds.items()}
        for key in feeds:
            self._require_own(key)
        fed = {}
        for name, tensor in choosing.feed_names(self.graph, values, signature).items():
            target = self.tensor(tensor)
            shape = None if target.shape.rank is None else tuple(target.shape.as_list())
            dtype = dtype_of(target.dtype.as_datatype_enum)
            label = tensor if name in (tensor, op_of(tensor)) else f"{name} ({tensor})"
            fed[target] = fit(values[name], dtype, shape, name=label, batch_dim=batch_dim, broadcast=broadcast)
        return fed

    def _require(self, wanted: Any, fed: Mapping[Any, Any], signature: str) -> tuple[set[str], bool]:
        """The ops that will run, and whether they may wait for a queue; raises if they can't run.

        What was once found ready stays so: then no ops are returned.
        """
        names = tuple(element.name for element in self._tf.nest.flatten(wanted))
        key = (names, frozenset(tensor.name for tensor in fed))
        if key in self._ready:
            return set(), False
        ops = self._state.require(names, key[1], choosing.arguments(self.graph, signature, "inputs"))
        # A queue may have been emptied since it was filled; an iterator says so at once.
        may_wait = any(waiting(self._nodes, ops, self._iterators))
        if not may_wait:
            self._ready.add(key)
        return ops, may_wait


def _values(beside: Located, checkpoint: str | os.PathLike[str] | Located | None) -> tuple[Located, Checkpoint | None]:
    """Where the values of variables are, in the checkpoint given or beside the graph; and these values, if any."""
    if checkpoint is None:
        located = beside
        if not located.has_variables:
            return located, None
    else:
        located = checkpoint if isinstance(checkpoint, Located) else locate(checkpoint)
        if located.foreign:
            hint = "export --tf makes a checkpoint of it"
            raise NotSupportedError("TensorFlow can't restore from such a file", path=located.prefix, hint=hint)
    values = open_checkpoint(located)
    state.require_restorable(located)
    return located, values
