"""The SavedModel: a directory with the graphs, their variables, and files that they need.

    saved_model.pb (or .pbtxt)   one or several MetaGraphDefs, each with its tags
    variables/variables.…        the variables of all of them, a tensor bundle
    assets/                      vocabularies and such
    fingerprint.pb               hashes of the above (since 2.11)

(tensorflow/python/saved_model/constants.py, core/protobuf/saved_model.proto, fingerprint.proto)
"""
