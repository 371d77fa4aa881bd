"""What is measured: jobs that take turns, and the peers that ckpttool's are compared with.

start   list a small checkpoint and its graph: nearly all of it is what Python has to import
many    a checkpoint of very many variables listed; one of them looked up
graph   a graph of very many ops looked through, and its devices taken out
export  a large checkpoint to each format: how fast bytes move, and in how much memory
change  it on the way: slots dropped, values cast; the mean of two
pieces  the same bytes in one variable, in many tiny ones, in slices and in shards, to each format, and as many files
values  a large checkpoint looked through, and compared with another one, beside reading the file and no more
verify  its checksums tested, beside reading the file and no more
deploy  a small model frozen, and as a SavedModel
run     a small model: what there is to pay beside TensorFlow's import and the restoring
"""

from typing import NamedTuple


class Job(NamedTuple):
    """A process to be measured: words in {braces} are paths, `ckpttool` and `python` those of this interpreter.

    `needs` is what may be missing here: "tensorflow" or "netron". `code` is the exit code.
    """

    name: str
    command: str
    needs: str = ""
    code: int = 0


class Race(NamedTuple):
    """Jobs that take turns, on inputs that are among INPUTS; the peers are the names of those to compare with."""

    group: str
    title: str
    inputs: tuple[str, ...]
    peers: tuple[str, ...]
    jobs: tuple[Job, ...]


INPUTS = {
    **{kind: (kind, "size") for kind in ("bundle", "weights", "trained", "adam")},
    **{kind: (kind, "pieces") for kind in ("one", "tiny", "slices", "shards")},
    "served": ("served", ""),
    "many": ("many", "variables"),
    "graph": ("graph", "nodes"),
}
"""Of each input, by its name in commands, the kind that inputs.py makes, and the option that says how much of it."""


_IMPORTS = Job("imports", "python -c 'import typer, rich.table'")
_VARIABLE = "model/layer_0000/block_500/kernel"


def _tensorflow(script: str, name: str = "TensorFlow") -> Job:
    return Job(name, f"python {{here}}/peers/{script}", "tensorflow")


def _netron(path: str) -> Job:
    return Job("Netron", f"node {{here}}/peers/netron.mjs {{netron}} {path}", "netron")


def _data(*prefixes: str) -> str:
    return " ".join(f"{{{prefix}}}.data-00000-of-00001" for prefix in prefixes)


def _values(what: str, command: str, inputs: tuple[str, ...], script: str, code: int = 0) -> Race:
    """Values looked at by us, only read, and looked at by a script that a user would write."""
    paths = " ".join(f"{{{name}}}" for name in inputs)
    return Race(
        "values",
        f"{{size}} {what}",
        inputs,
        ("reading", "TensorFlow + NumPy"),
        (
            Job(f"ckpttool {command}", f"ckpttool {command} {paths}", code=code),
            Job("reading", f"python {{here}}/peers/read_file.py {_data(*inputs)}"),
            _tensorflow(f"{script} {paths}", "TensorFlow + NumPy"),
        ),
    )


def _conversion(group: str, what: str, options: str, peers: tuple[Job, ...], source: str = "weights") -> Race:
    """A large checkpoint converted by us, copied by cp, and converted by others."""
    return Race(
        group,
        f"a checkpoint of {{size}} {what}",
        (source,),
        ("cp", *(peer.name for peer in peers)),
        (
            Job("ckpttool export", f"ckpttool export {{{source}}} {options}"),
            Job("cp", f"cp {_data(source)} {{output}}"),
            *peers,
        ),
    )


def _pieces(what: str, options: str, *peers: Job) -> Race:
    """The same bytes in more and more pieces, and what others take for the many."""
    jobs = {"one": "one variable", "tiny": "10,000 variables", "slices": "1,000 slices", "shards": "1,000 shards"}
    return Race(
        "pieces",
        f"{{pieces}} to {what}, stored as",
        tuple(jobs),
        ("one variable", *(peer.name for peer in peers)),
        (*(Job(name, f"ckpttool export {{{kind}}} {options}") for kind, name in jobs.items()), *peers),
    )


def _files(count: int) -> Job:
    """The same bytes in as many files, which is the least that it takes to write so many."""
    return Job(
        f"{count:,} files", f"python {{here}}/peers/write_files.py {{one}}.data-00000-of-00001 {count} {{output}}"
    )


def _variables(script: str, library: str = "") -> Job:
    """The 10,000 variables, converted by a script that a user would write."""
    return _tensorflow(script, f"10,000, TensorFlow{library}")


_START = (
    Race("start", "help", (), ("imports",), (Job("ckpttool --help", "ckpttool --help"), _IMPORTS)),
    Race(
        "start",
        "the variables of a small checkpoint",
        (),
        ("imports", "TensorFlow", "inspect_checkpoint", "Netron"),
        (
            Job("ckpttool vars", "ckpttool vars {small}"),
            Job("ckpttool vars, table", "ckpttool vars {small} --format table"),
            _IMPORTS,
            _tensorflow("list_variables.py {small}"),
            Job(
                "inspect_checkpoint",
                "python -m tensorflow.python.tools.inspect_checkpoint --file_name {small}",
                "tensorflow",
            ),
            _netron("{small}.index"),
        ),
    ),
    Race(
        "start",
        "the graph of a small checkpoint",
        (),
        ("imports", "TensorFlow", "Netron"),
        (
            Job("ckpttool ls", "ckpttool ls {small}.meta"),
            Job("ckpttool ls, table", "ckpttool ls {small}.meta --format table"),
            Job("ckpttool io", "ckpttool io {small}.meta"),
            _IMPORTS,
            _tensorflow("list_graph.py {small}.meta"),
            _netron("{small}.meta"),
        ),
    ),
    Race(
        "start",
        "the signatures of a small SavedModel",
        ("served",),
        ("imports", "saved_model_cli"),
        (
            Job("ckpttool io", "ckpttool io {served}"),
            _IMPORTS,
            Job("saved_model_cli", "saved_model_cli show --dir {served} --all", "tensorflow"),
        ),
    ),
)

_LARGE = (
    Race(
        "many",
        "{variables} variables",
        ("many",),
        ("imports", "TensorFlow"),
        (
            Job("ckpttool vars", "ckpttool vars {many}"),
            Job("ckpttool vars --json", "ckpttool vars {many} --json"),
            Job("ckpttool vars, table", "ckpttool vars {many} --format table --all"),
            Job("ckpttool cat", f"ckpttool cat {{many}} {_VARIABLE}"),
            _IMPORTS,
            _tensorflow("list_variables.py {many}"),
            _netron("{many}.index"),
        ),
    ),
    Race(
        "graph",
        "a graph of {nodes} ops",
        ("graph",),
        ("TensorFlow",),
        (
            Job("ckpttool ls", "ckpttool ls {graph}.meta"),
            Job("ckpttool io", "ckpttool io {graph}.meta"),
            _tensorflow("list_graph.py {graph}.meta"),
            _netron("{graph}.meta"),
        ),
    ),
    Race(
        "graph",
        "the devices of {nodes} ops taken out",
        ("graph",),
        ("TensorFlow",),
        (
            Job("ckpttool strip-devices", "ckpttool strip-devices {graph}.meta -o {output}"),
            _tensorflow("clear_devices.py {graph}.meta {output}"),
        ),
    ),
)

_BYTES = (
    _conversion(
        *("export", "to HDF5", "--h5 {output}"),
        (
            Job("h5py", "python {here}/peers/h5py_writer.py {weights} {output}"),
            _tensorflow("export_hdf5.py {weights} {output}", "TensorFlow + h5py"),
        ),
    ),
    _conversion(
        *("export", "to safetensors", "--safetensors {output}.safetensors"),
        (
            Job("safetensors", "python {here}/peers/safetensors_writer.py {weights} {output}"),
            _tensorflow("export_safetensors.py {weights} {output}", "TensorFlow + safetensors"),
        ),
    ),
    _conversion(
        *("export", "to npz", "--npz {output}.npz"),
        (_tensorflow("export_npz.py {weights} {output}.npz", "TensorFlow + NumPy"),),
    ),
    _conversion("export", "to a bundle", "--tf {output}", (_tensorflow("rewrite.py {weights} {output}"),)),
    _conversion("export", "to a V1 checkpoint", "--tf-v1 {output}", ()),
    _conversion("export", "to npy", "--npy {output}", ()),
    _conversion(
        *("change", "with Adam's slots, without them", "--tf {output} --drop-slots"),
        (_tensorflow("rewrite.py {adam} {output} drop"),),
        "adam",
    ),
    _conversion(
        *("change", "to bfloat16", "--tf {output} --cast bfloat16"),
        (_tensorflow("rewrite.py {weights} {output} cast"),),
    ),
    Race(
        "change",
        "the mean of two checkpoints of {size}",
        ("weights", "trained"),
        ("cp", "TensorFlow"),
        (
            Job("ckpttool average", "ckpttool average {weights} {trained} --tf {output}"),
            Job("cp", f"cp {_data('weights')} {{output}}"),
            _tensorflow("average.py {output} {weights} {trained}"),
        ),
    ),
    _values("looked through", "stats", ("weights",), "statistics_of.py"),
    _values("compared with other values", "diff", ("weights", "trained"), "compare.py", code=1),
    Race(
        "verify",
        "a checkpoint of {size}",
        ("bundle",),
        ("reading", "cat", "TensorFlow"),
        (
            Job("ckpttool verify", "ckpttool verify {bundle}"),
            Job("reading", f"python {{here}}/peers/read_file.py {_data('bundle')}"),
            Job("cat", f"sh -c 'cat \"$0\" > /dev/null' {_data('bundle')}"),
            _tensorflow("read_values.py {bundle}"),
        ),
    ),
    _pieces("HDF5", "--h5 {output}", _variables("export_hdf5.py {tiny} {output}", " + h5py")),
    _pieces(
        *("safetensors", "--safetensors {output}.safetensors"),
        _variables("export_safetensors.py {tiny} {output}", " + safetensors"),
    ),
    _pieces("npz", "--npz {output}.npz", _variables("export_npz.py {tiny} {output}.npz", " + NumPy")),
    _pieces("npy", "--npy {output}", _files(10_000)),
    _pieces("a bundle", "--tf {output}", _files(1000), _variables("save_op.py {tiny} {output}")),
    _pieces("a V1 checkpoint", "--tf-v1 {output}"),
)

_MODELS = (
    Race(
        "deploy",
        "a small model frozen",
        (),
        ("imports", "TensorFlow"),
        (
            Job("ckpttool freeze", "ckpttool freeze {small}.meta --outputs predictions -o {output}"),
            _IMPORTS,
            _tensorflow("freeze.py {small} {output} predictions"),
        ),
    ),
    Race(
        "deploy",
        "a small model as a SavedModel",
        (),
        ("imports", "TensorFlow"),
        (
            Job(
                "ckpttool saved-model",
                "ckpttool saved-model {small} --inputs images:0 --outputs predictions:0 -o {output}",
            ),
            _IMPORTS,
            _tensorflow("saved_model.py {small} {output} images:0 predictions:0"),
        ),
    ),
    Race(
        "run",
        "a small model",
        (),
        ("TensorFlow",),
        (
            Job(
                "ckpttool run",
                "ckpttool run {small} --feed images:0=0 --broadcast --fetch predictions:0",
                "tensorflow",
            ),
            _tensorflow("run.py {small} images:0 predictions:0"),
        ),
    ),
)

RACES = _START + _LARGE + _BYTES + _MODELS
