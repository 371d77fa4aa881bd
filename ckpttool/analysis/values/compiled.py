"""The compiled passes over float32 values; None if they were not compiled at installation: then NumPy does it.

Most weights are float32, and NumPy holds Python's lock in its slowest passes, so that a second thread waits.
"""

__all__ = ["float32"]

try:
    from ckpttool.analysis.values import _float32 as float32
except ImportError:
    float32 = None  # type: ignore[assignment]
