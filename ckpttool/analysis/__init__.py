"""What can be said of models: graphs and values, looked into. Takes models, gives facts; no files, no terminal.

values    statistics of a variable, differences of two, of two checkpoints, of runs; excerpts of large arrays
graphs    what an op needs, what to feed and fetch, what fills tables and pipelines, what a saver restores
parallel  tasks side by side, their results in order
"""
