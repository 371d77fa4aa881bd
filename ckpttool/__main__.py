"""The program. While it is imported, there is nothing to tidy up: an interrupt ends it at once, without a traceback."""

import gc
import os
import signal

# NumPy's library for matrices starts a thread for each core, and these spin; no product here is worth one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# A listing makes a million objects and no garbage: to look for some after every 700 took an eighth of its time.
gc.set_threshold(100_000)
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # Not where it is to be ignored, as by nohup.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from ckpttool.cli import main  # noqa: E402 - what is above is for the import, too

if __name__ == "__main__":
    main()
