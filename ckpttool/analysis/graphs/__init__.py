"""Graphs: what is needed for what, what is fed and fetched, and how two of them differ."""
