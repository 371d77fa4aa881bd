"""Variables' names as paths of datasets, and the attributes beside these."""

NOTE = "ckpttool_note"
"""The attribute with a Note."""

MAX_DEPTH = 4000
"""Groups that are entered, one in another: scopes are nested in tens, not in thousands."""


def dataset_path(name: str) -> str:
    """The path of the dataset for a variable; see the top of this package."""
    *groups, last = (_escape(segment) for segment in name.split("/"))
    encoded = [{".": "%2E", "": "%"}.get(group, group.replace(":", "%3A")) for group in groups]
    return "/".join([*encoded, f"{last}:0"])


def _escape(segment: str) -> str:
    segment = segment.replace("%", "%25").replace("\0", "%00")
    if segment.isascii():
        return segment
    return "".join(f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in segment)
