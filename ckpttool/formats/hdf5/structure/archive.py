"""Where the HDF5 is in a `.keras` file, a whole model: a zip archive, which has the weights uncompressed.

(keras/src/saving/saving_lib.py)
"""

from ckpttool.errors import CorruptionError, NotSupportedError
from ckpttool.formats.hdf5.structure.file import Read
from ckpttool.formats.zip_members import SIGNATURE, checked, is_encrypted, require_inside, start_of

WEIGHTS = "model.weights.h5"
"""The member that has the weights."""

_CHUNK = 1 << 20


def is_archive(read: Read) -> bool:
    return read(0, len(SIGNATURE)) == SIGNATURE


def weights_in(path: str, read: Read, size: int) -> tuple[int, int]:
    """Where in an archive the weights begin, and where they end.

    Raises:
        CorruptionError: it is no sound archive, or has no such member.
        NotSupportedError: the member is compressed, or encrypted.
    """
    import zipfile

    with checked(), zipfile.ZipFile(path) as archive:
        if WEIGHTS not in archive.namelist():
            raise CorruptionError(f"the archive has no {WEIGHTS}")
        member = archive.getinfo(WEIGHTS)
        if is_encrypted(member) or member.compress_type != zipfile.ZIP_STORED:
            what = "encrypted" if is_encrypted(member) else "compressed"
            raise NotSupportedError(f"{WEIGHTS} is {what} in the archive", hint=f"unzip it, and give {WEIGHTS}")
        require_inside(member, size)
        start = start_of(member, read)
    end = start + member.file_size
    if end > size:
        raise CorruptionError(f"{WEIGHTS} is cut off: it ends at byte {end:,} of {size:,}", offset=start)
    return start, end


def require_checksum_of_weights(path: str) -> None:
    """Raises CorruptionError unless the weights have the CRC-32 that their archive says."""
    import zipfile

    with checked(), zipfile.ZipFile(path) as archive, archive.open(WEIGHTS) as stream:
        while stream.read(_CHUNK):
            pass
