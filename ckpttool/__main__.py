"""The program. While it is imported, there is nothing to tidy up: an interrupt ends it at once, without a traceback."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # Not where it is to be ignored, as by nohup.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from ckpttool.cli import main

if __name__ == "__main__":
    main()
