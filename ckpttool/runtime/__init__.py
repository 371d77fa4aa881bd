"""Runs a saved graph in TensorFlow: the only part that imports it.

quiet       the import itself, without its log
registry    which ops and kernels this TensorFlow has (transforms.preparing asks it)
importing   the graph imported, mended where TensorFlow refuses it; its errors as ours
state       values for the variables: by the graph's saver, or one by one
imported    all of it, in a graph and session of its own
"""
