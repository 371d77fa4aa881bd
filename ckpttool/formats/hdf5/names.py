"""The paths of datasets for variables' names, and the names of attributes."""

from ckpttool.model.texts import percent_encoded

NOTE = "ckpttool_note"
"""The attribute with a Note."""

MAX_DEPTH = 4000
"""How many groups deep datasets are looked for: scopes are nested in tens, not in thousands."""


def dataset_path(name: str) -> str:
    """The path of the dataset for a variable (see `formats.hdf5`)."""
    *groups, last = percent_encoded(name.replace("%", "%25").replace("\0", "%00")).split("/")
    encoded = [{".": "%2E", "": "%"}.get(group, group.replace(":", "%3A")) for group in groups]
    return "/".join([*encoded, f"{last}:0"])
