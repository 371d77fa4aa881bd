"""Bytes ↔ records: pure functions and small values. No files, and no word of TensorFlow's."""
