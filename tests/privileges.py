"""What is done as somebody who may not read and write everything, also where the tests are run by root.

Root may because of two capabilities (capabilities(7)), which a process can give up. A forked one does, so that the
tests keep theirs.
"""

import ctypes
import os
import struct
import sys
import traceback
from collections.abc import Callable

import pytest

_VERSION_3 = 0x20080522
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2
_LOST = 1 << _CAP_DAC_OVERRIDE | 1 << _CAP_DAC_READ_SEARCH


def give_up() -> None:
    """Gives up what lets this process write where it may not.

    Raises:
        OSError: that is not possible here.
    """
    if not sys.platform.startswith("linux"):
        raise OSError("no capabilities but on Linux")
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = struct.pack("<Ii", _VERSION_3, 0), ctypes.create_string_buffer(24)
    if libc.capget(header, data):
        raise OSError(ctypes.get_errno(), "capget")
    words = list(struct.unpack("<6I", data.raw))
    words[:3] = [word & ~_LOST for word in words[:3]]  # Effective, permitted, inheritable; of the lower 32.
    if libc.capset(header, struct.pack("<6I", *words)):
        raise OSError(ctypes.get_errno(), "capset")


def unprivileged(act: Callable[[], object]) -> None:
    """Runs a test's body in a process that may write only where its user may; skips the test if there is none."""
    if os.geteuid() != 0:
        act()
        return
    read, write = os.pipe()
    child = os.fork()
    if not child:
        code, text = 1, ""
        try:
            try:
                give_up()
            except OSError as error:
                code, text = 77, str(error)
            else:
                act()
                code = 0
        except BaseException:
            text = traceback.format_exc()
        finally:
            os.write(write, text.encode(errors="backslashreplace")[:60_000])
            os._exit(code)
    os.close(write)
    with os.fdopen(read, errors="replace") as file:
        text = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 77:
        pytest.skip(f"root may write anywhere, and can't give that up here: {text}")
    assert code == 0, text
