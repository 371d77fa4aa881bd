"""Whether what lies beside the variables of a checkpoint belongs to the same model."""

import os
from collections.abc import Callable, Collection

from ckpttool.analysis.agreement import disagreements, object_disagreements
from ckpttool.errors import CheckpointError, located
from ckpttool.formats.checkpoint_state import STATE_FILE
from ckpttool.formats.listing import state_entries
from ckpttool.formats.locate import Located
from ckpttool.formats.opening import open_graph
from ckpttool.formats.zip_members import KERAS
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.findings import Finding, finding_of
from ckpttool.model.object_keys import OBJECT_GRAPH_KEY


def findings_beside(
    found: Located, checkpoint: Checkpoint, damaged: Collection[str], *, is_lossy: bool
) -> list[Finding]:
    """What is wrong with object graph, graph, state file and archive.

    Args:
        found: where they are.
        checkpoint: what could be listed.
        damaged: the names of its variables that are not whole.
        is_lossy: the index is damaged, and may have listed more.
    """
    checks: dict[str, Callable[[], list[Finding]]] = {
        # Damage has been reported already.
        "objects": lambda: [] if OBJECT_GRAPH_KEY in damaged else object_disagreements(checkpoint),
        "graph": lambda: disagreements(open_graph(found), checkpoint, is_lossy=is_lossy) if found.graph else [],
        "state": lambda: [] if found.foreign else _of_state(os.path.dirname(found.prefix) or "."),
        "data": lambda: _of_archive(checkpoint.path) if checkpoint.format == KERAS else [],
    }
    findings: list[Finding] = []
    for kind, check in checks.items():
        try:
            findings += check()
        except CheckpointError as error:
            findings.append(finding_of(error, kind))
    return findings


def _of_state(directory: str) -> list[Finding]:
    """A finding if the latest checkpoint, by the state file, is gone."""
    path = os.path.join(directory, STATE_FILE)
    if not os.path.isfile(path):
        return []
    gone = (entry.written for entry in state_entries(directory) if entry.is_latest and not entry.prefix)
    hint = "ckpttool state tells more"
    return [Finding("state", f"the latest checkpoint it names is gone: {name}; {hint}", path) for name in gone]


def _of_archive(path: str) -> list[Finding]:
    from ckpttool.formats.hdf5 import require_checksum_of_weights

    with located(path):
        require_checksum_of_weights(path)
    return []
