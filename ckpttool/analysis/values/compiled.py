"""The compiled passes over float32 values; None where they could not be compiled when this was installed: NumPy serves.

Most weights are float32, and NumPy holds Python's lock in what takes it longest, so that the second core waits.
"""

__all__ = ["float32"]

try:
    from ckpttool.analysis.values import _float32 as float32
except ImportError:
    float32 = None  # type: ignore[assignment]
