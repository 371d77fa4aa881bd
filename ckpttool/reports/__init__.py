"""Model → Report: facts as titled columns and rows. Knows nothing of colors and terminals.

`checkpoints` and `graphs` are imported only where they are needed, for each takes time to import.
"""
