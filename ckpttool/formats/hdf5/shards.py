"""Keras 3's weights in shards: a `.weights.json`, which says in which `.weights.h5` beside it a layer's weights are.

    "weight_map": {"/layers/dense/vars": ["m_00000.weights.h5"],
                   "/layers/dense_1/vars": ["m_00000.weights.h5", "m_00001.weights.h5"]}

A list has several where a layer's weights go over two files; of each weight one has all. What a layer is called stands
in the first file that has some of it.
(keras/src/saving/saving_lib.py ShardedH5IOStore; older releases write a name instead of a list of one)
"""

import os
from collections.abc import Iterator
from itertools import chain

from ckpttool.errors import CheckpointError, CorruptionError, reporter
from ckpttool.formats.hdf5.reading import FORMAT, read_hdf5
from ckpttool.formats.lookalikes import foreign_format, refuse_lookalike
from ckpttool.formats.siblings import sibling
from ckpttool.formats.weight_map import read_weight_map
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.variable import Variable


def read_hdf5_shards(path: str | os.PathLike[str], *, faults: list[CheckpointError] | None = None) -> Checkpoint:
    """Opens the files that a `.weights.json` names, as one checkpoint.

    Args:
        path: the `.weights.json`.
        faults: a list for the errors of damaged files and datasets, which are passed over; None: they are raised.

    Raises:
        FormatError: it is no such index, or names a file elsewhere, or one that is no HDF5.
        CorruptionError: a file is missing, or does not have what it is said to have; as `read_hdf5`.
    """
    path = os.fspath(path)
    groups = {group.strip("/"): names for group, names in read_weight_map(path).items()}
    report = reporter(path, faults)
    variables: dict[str, Variable] = {}
    names_of_layers: dict[str, str] = {}
    warnings: list[str] = []
    files = []
    for name in dict.fromkeys(chain.from_iterable(groups.values())):
        try:
            shard = _read(sibling(path, name), faults, names_of_layers)
        except CheckpointError as error:
            report(error)
            continue
        files.append(shard.path)
        warnings += shard.warnings
        expected = {group for group, names in groups.items() if name in names}
        there = {each: next((group for group in _above(each) if group in expected), None) for each in shard}
        for group in sorted(expected - set(there.values())) if not shard.warnings else ():
            report(CorruptionError(f"the index says that /{group} is in {name}, and it is not"))
        for each, variable in shard.items():
            if there[each] is None:
                warnings.append(f"{each} is in {shard.path}, and the index does not name it there: passed over")
            elif each in variables:
                report(CorruptionError("two of the files have it", variable=each))
            else:
                variables[each] = variable
    return Checkpoint(variables, path=path, format=FORMAT, files=[path, *files], warnings=warnings)


def _read(path: str, faults: list[CheckpointError] | None, names: dict[str, str]) -> Checkpoint:
    if foreign_format(path) != "hdf5":
        refuse_lookalike(path)  # Often a pointer: the index is small, and a clone without Git LFS has it itself.
    return read_hdf5(path, faults=faults, names=names)


def _above(name: str) -> Iterator[str]:
    """The paths of the groups that a dataset is in, from the nearest one."""
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name
