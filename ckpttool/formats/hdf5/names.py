"""Variables' names as paths of datasets, and the attributes beside these."""

from ckpttool.model.texts import percent_encoded

NOTE = "ckpttool_note"
"""The attribute with a Note."""

MAX_DEPTH = 4000
"""Groups that are entered, one in another: scopes are nested in tens, not in thousands."""


def dataset_path(name: str) -> str:
    """The path of the dataset for a variable; see the top of this package."""
    *groups, last = percent_encoded(name.replace("%", "%25").replace("\0", "%00")).split("/")
    encoded = [{".": "%2E", "": "%"}.get(group, group.replace(":", "%3A")) for group in groups]
    return "/".join([*encoded, f"{last}:0"])
