"""All targets, by name."""

from fuzz import commands, damaged, targets
from fuzz.targets import Target

TARGETS: dict[str, Target] = {**targets.TARGETS, **damaged.TARGETS, **commands.TARGETS}
