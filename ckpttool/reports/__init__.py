"""Model → Report: what there is to say, as titled columns and rows. Knows no colors and no terminals.

`checkpoints` and `graphs` are imported where they are needed: neither pays for the other.
"""
