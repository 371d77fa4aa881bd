"""HDF5: every variable a dataset, its bytes as they are.

A variable `a/b` is the dataset `a/b:0`, as Keras names weights, so that `w` and `w/Adam` can both exist. What HDF5
can't hold in a name is percent-encoded, and the attribute `name` keeps the true one:

    a segment `.` → `%2E`   an empty segment → `%`   %, NUL, bytes that are not UTF-8 → `%25`, `%00`, `%FF`
    `:` before the last segment → `%3A`, so that no group can have the name of a dataset

Types are those that mean the same values: bfloat16 a 16-bit float with 8 bits of exponent, bool and complex as
h5py has them, int4 an integer of 4-bit precision. Quantized numbers are integers, and the 8-bit floats without
infinities are their bits as uint8; the attribute `tensorflow_dtype` then says what they are. Strings have variable
length; as HDF5 ends a string at a NUL, variables with one are stored as sequences of uint8.

Values lie in one piece each, at places that are known from the start, so that their bytes are copied straight there.

What else a dataset does not say of its variable is in the attribute `ckpttool_note` (formats.notes).

Files of others are read too. A variable is named by its dataset's path, without `:0`; below a group that has Keras'
list `weight_names`, by the path from there, which is the name that Keras gave the weight. A name that several would
have gets the path of their group in front:

    Keras' .h5       /dense/dense/kernel:0                            dense/kernel
    a whole model    /model_weights/dense/dense/kernel:0              dense/kernel
                     /optimizer_weights/Adam/m/dense/kernel:0         Adam/m/dense/kernel
    two of a name    /left/kernel:0, /right/kernel:0                  left/kernel, right/kernel
    .weights.h5      /layers/dense/vars/0, /optimizer/vars/2          layers/dense/vars/0, optimizer/vars/2
    .keras           the same, of the file within                     the same
    .weights.json    the same, of all files that it names             the same
    anything         /a/b                                             a/b

(Keras 3 numbers the weights of its .weights.h5; their names are not in the file.) Attributes are not variables.
Anything else with a name in the file that can't be one is passed over with a warning that says why: links to elsewhere,
second links to the same object, values in other files, shapes without values, compounds, references, enumerations and
other types that TensorFlow has no dtype for.

All of it is done here, in Python: reading, so that nothing in a file can do harm; writing, because the library takes
longer to make a dataset than to write its values. (Only LZF is still compressed by h5py.)

    structure                                    what a file is made of, read; `encoding`: the same, written
    datasets ─ reading, shards                   the datasets are found, and become variables
    chunks, filters, strings                     their values
    guessed_layers, bfloat16                     what Keras stores without saying so
    writing, compressing                         variables become datasets; values are cut into chunks
    keras ─ weight_order, model_layers, models   the layout that Keras reads: layers, and their weights in order
"""

from ckpttool.formats.hdf5.names import dataset_path
from ckpttool.formats.hdf5.reading import read_hdf5
from ckpttool.formats.hdf5.shards import read_hdf5_shards
from ckpttool.formats.hdf5.structure import require_checksum_of_weights
from ckpttool.formats.hdf5.writing import plan_hdf5, write_hdf5

__all__ = ["dataset_path", "plan_hdf5", "read_hdf5", "read_hdf5_shards", "require_checksum_of_weights", "write_hdf5"]
