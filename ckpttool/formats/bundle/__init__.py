"""The tensor bundle, TensorFlow's checkpoint format V2: `PREFIX.index` and `PREFIX.data-00000-of-00001` ….

The index is a table (wire.sstable) of messages (formats.records). Key "" holds the BundleHeaderProto: the number
of shards, their byte order, a version. Every other key is a variable's name and holds its BundleEntryProto: dtype,
shape, and where its values lie: shard, offset, size, masked CRC-32C. float32[4] at the start of shard 0 is

    08 01 | 12 04 12 02 08 04 | 28 10 | 35 b9 6f 57 d8        dtype 1, shape {dim {size 4}}, size 16, crc32c

Values are row-major in the byte order of the machine that wrote them. Strings are varint lengths, the masked CRC
of the lengths, then all bytes. A partitioned variable's entry has its full shape and a list of slices, each
stored as an entry of its own under a key made of name and extents.

(tensorflow/core/util/tensor_bundle/tensor_bundle.cc, core/protobuf/tensor_bundle.proto)
"""

from ckpttool.formats.bundle.names import FORMAT, MAX_SHARDS, bundle_files, index_path, shard_path

# The reader is not imported here: to look for a checkpoint, or for the graph beside it, does not take it.
__all__ = ["FORMAT", "MAX_SHARDS", "bundle_files", "index_path", "shard_path"]
