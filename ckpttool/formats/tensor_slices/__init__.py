"""Tensor slices, TensorFlow's checkpoint format V1: one file, or the shards `NAME-00000-of-00002` ….

Each file is a table (wire.sstable) of SavedTensorSlices messages (formats.records). Key "" holds the meta: name,
shape, dtype of each tensor, and which slices of it are in this file. Every other key is made of a tensor's name
and a slice's extents, and holds a SavedSlice: these two again, and a TensorProto with the values. A whole tensor
is a slice with nothing cut: an empty extent for each dimension. The key of int32[3] named "a" is

    00 | 61 00 01 | 01 01 | 80 7f                 0, "a", rank 1, start 0, length -1 (all)

and under it [1, -2, 300] is

    12 18                                         data
       0a 01 61 | 12 02 0a 00                        name "a", slice {extent {}}
       1a 0f                                         data: the TensorProto
          3a 0d | 01 | fe ff ff ff ff ff ff ff ff 01 | ac 02         int_val, packed

The TensorProto has nothing but the one repeated field that goes with the dtype, and in it exactly as many values
as the slice has elements. Integers are varints, so the values are nowhere in the file as they are in memory.

(tensorflow/core/util/saved_tensor_slice.proto, tensor_slice_writer.h, tensor_slice_reader.cc)
"""

FORMAT = "TensorFlow checkpoint V1 (tensor slices)"
