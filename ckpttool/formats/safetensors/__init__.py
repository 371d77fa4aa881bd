r"""safetensors: a JSON header, and the tensors one after another.

    8 bytes   length of the header, little-endian
    header    {"__metadata__": {text: text}, NAME: {"dtype": "F32", "shape": [2,3], "data_offsets": [0, 24]}, …}
    data      offsets count from here; the tensors follow one another without a gap, to the end of the file

float32[1] = [1.0] named "a" is

    38 00 00 00 00 00 00 00 | {"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} + 2 spaces | 00 00 80 3f

Tensors are row-major and little-endian, as in a bundle, so that their bytes are copied. They are written as the
reference implementation writes them: from the widest items to the narrowest, so that each is aligned, of one width by
type, of one type by name. What has no type here is stored as bytes or numbers that have one, bit for bit: strings and
variants as a bundle has them, as U8; complex128 as pairs of F64; quantized numbers as the integers they are; four-bit
and two-bit numbers as U8, one a byte, as TensorFlow keeps them.
The key `ckpttool.notes` of the metadata is JSON with what a tensor was (formats.notes): the way back loses nothing.

Large checkpoints are a directory of several such files, with `model.safetensors.index.json` as Hugging Face's
libraries read it: {"metadata": {"total_size": N}, "weight_map": {NAME: FILE}}.

(github.com/huggingface/safetensors: README.md and safetensors/src/tensor.rs; huggingface_hub/serialization)
"""

from ckpttool.formats.safetensors.reading import read_safetensors, read_safetensors_index
from ckpttool.formats.safetensors.writing import plan_safetensors, require_shards_writable, write_safetensors

__all__ = [
    "plan_safetensors",
    "read_safetensors",
    "read_safetensors_index",
    "require_shards_writable",
    "write_safetensors",
]
