"""What goes on where a reader stops: opening past damage, `verify`, `export --salvage`; and what looks at values.

Beyond that nothing but answers is raised, all of them have to agree: what one finds whole the others can read.
"""

import contextlib
import io
import os
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from ckpttool.errors import CheckpointError, ConversionError, NotSupportedError
from ckpttool.formats.opening import open_checkpoint
from fuzz import targets
from fuzz.targets import WRITERS, Files, Target, attempt


def _try(name: str, directory: str, random: Random) -> None:
    path, faults = os.path.join(directory, name), list[CheckpointError]()
    checkpoint = attempt(lambda: open_checkpoint(path, faults=faults))
    strictly = attempt(lambda: open_checkpoint(path))
    if checkpoint is None:
        assert strictly is None, "it can't be opened past what opening it does not find"
        return
    if strictly is not None:
        assert len(faults) <= len(strictly.warnings), faults  # What is a warning there, is one to `verify` too.
        assert list(strictly) == list(checkpoint)
    elif not faults:
        raise AssertionError("it can't be opened, and nothing is wrong with it")
    verified = _verified(checkpoint, faults)
    _agree(verified, random)
    random.choice(_WORK)(verified, directory, random)


def _verified(checkpoint: Any, faults: list[CheckpointError]) -> Any:
    from ckpttool.formats.verifying import strict_findings, verify_values
    from ckpttool.reports.findings import findings

    try:
        verified = verify_values(checkpoint, faults)
        findings([*verified.findings, *strict_findings(checkpoint)])
    except CheckpointError as error:
        raise AssertionError("verifying goes on, whatever is wrong") from error
    assert bool(faults or verified.damaged) <= bool(verified.findings)
    assert set(verified.damaged) <= set(checkpoint)
    return verified


def _agree(verified: Any, random: Random) -> None:
    """What is whole can be read, but for dtypes that nobody can, and what is not can't."""
    for name in random.sample(list(verified.checkpoint), min(4, len(verified.checkpoint))):
        variable = verified.checkpoint[name]
        try:
            variable.numpy()
        except NotSupportedError:
            pass
        except CheckpointError as error:
            if name not in verified.damaged:
                raise AssertionError(f"{name} is whole, and can't be read") from error
        else:
            assert name not in verified.damaged, (name, verified.damaged[name])


def _salvage(verified: Any, directory: str, random: Random) -> None:
    """What is whole is written and is the same when it is read again."""
    from ckpttool.transforms.variables import salvage

    whole = attempt(lambda: salvage(verified.checkpoint, verified.damaged))
    if not whole:
        return
    module, function, name = random.choice(WRITERS)
    out = Path(directory, "out")
    out.mkdir()
    try:
        planned = getattr(import_module(f"ckpttool.formats.{module}"), function)(whole, out / name)
    except (ConversionError, NotSupportedError):  # The target can't hold it.
        assert not os.listdir(out), os.listdir(out)
        return
    left_out = {each.variable.name for each in planned if each.problem}
    back = open_checkpoint(out / name)
    assert set(back) == set(whole) - left_out, (sorted(back), sorted(whole), left_out)
    for name in random.sample(list(back), min(4, len(back))):
        before, after = attempt(whole[name].numpy), attempt(back[name].numpy)
        if before is not None:
            assert after is not None, (module, name)
            assert (before.shape, before.tolist()) == (
                after.shape,
                after.tolist(),
            ) or before.tobytes() == after.tobytes()


def _same(a: Any, b: Any) -> bool:
    return bool(a.tolist() == b.tolist() or a.tobytes() == b.tobytes())


def _look(verified: Any, directory: str, random: Random) -> None:
    """`stats`, `verify --nan` and `cat`, of all that is there."""
    from ckpttool import render
    from ckpttool.analysis.values import excerpts
    from ckpttool.reports.findings import not_finite
    from ckpttool.reports.values import statistics

    checkpoint = verified.checkpoint
    attempt(lambda: statistics(checkpoint))
    attempt(lambda: not_finite(checkpoint, verified.whole))
    if not checkpoint:
        return
    name = random.choice(list(checkpoint))
    variable, printed = checkpoint[name], io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(ValueError, CheckpointError):
        indices = excerpts.edges(variable.shape)
        render.print_array(excerpts.at(variable, indices), None, indices=indices, shape=variable.shape)
        taken = excerpts.parse_slice(_slice(random, len(variable.shape)), variable.shape)
        part = excerpts.sliced(variable, taken).numpy()
        wanted = np.asarray(variable.numpy()[_numpy_slice(taken)], part.dtype)
        assert part.size > 10_000 or (part.shape == wanted.shape and _same(part, wanted))
        render.print_array(part, random.choice((None, 1, 17)))
    assert all(c.isprintable() or c == "\n" for c in printed.getvalue()), printed.getvalue()


def _slice(random: Random, rank: int) -> str:
    parts = (":", "0", "-1", "1:", ":2", "::2", "0:0", "5:2", "...", "99999999999", "0x1", "")
    return ",".join(random.choice(parts[:8] if random.random() < 0.9 else parts) for _ in range(rank))


def _numpy_slice(taken: Any) -> Any:
    return tuple(slice(each.start, each.stop, each.step) if isinstance(each, range) else each for each in taken)


def _compare(verified: Any, directory: str, random: Random) -> None:
    """`diff`, with itself, with what is whole, and with something else."""
    from ckpttool.analysis.values.comparison import compare
    from ckpttool.reports import differences

    a = verified.checkpoint
    b = random.choice((a, {name: a[name] for name in verified.whole}, targets.sound()))
    if random.random() < 0.5:
        a, b = b, a
    found = attempt(lambda: compare(a, b, values=random.random() < 0.8, atol=random.choice((0, 1e-3))))
    if found is not None:
        differences.structure(a, b, found)
        differences.values(found)


_WORK = [_salvage, _look, _compare]


def npy_directory_corpus() -> list[Files]:
    """A directory as it is written, and one that another program made."""
    import tempfile

    from ckpttool.formats.npy import write_npy

    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "arrays")
        write_npy(targets.sound(), out)
        files = {path.name: path.read_bytes() for path in out.iterdir()}
    return [files, {name: data for name, data in files.items() if name != "index.json"}]


def _change_npy_directory(random: Random, files: Files, other: Files) -> Files:
    name = random.choice(list(files))
    if name == "index.json":
        return targets.change_json_file(name, random, files, other)
    if random.random() < 0.1:
        return {each: data for each, data in files.items() if each != name}
    return {**files, name: targets.change_npy(random, files[name], b"")}


_PATHS = {
    "bundle": "m",
    "v1": "m",
    "safetensors": "m.safetensors",
    "safetensors-index": "model.safetensors.index.json",
    "npz": "m.npz",
    "npy": "m.npy",
}

TARGETS: Mapping[str, Target] = {
    **{
        f"{name}-damaged": Target(targets.TARGETS[name].corpus, targets.TARGETS[name].change, partial(_try, path))
        for name, path in _PATHS.items()
    },
    "npy-directory-damaged": Target(npy_directory_corpus, _change_npy_directory, partial(_try, "")),
}
"""The targets that are damaged, by name."""
