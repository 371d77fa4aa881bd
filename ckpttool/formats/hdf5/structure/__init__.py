"""What an HDF5 file is made of, read from its bytes alone.

    superblock ── root group ── links ── objects: groups and datasets
                                          └─ header of messages: dataspace, datatype, layout, filters, fill value, …

`file` gives the bytes at an address, and limits how many are read as structures to a few times the file's size: so
addresses that lead in a circle, or from a thousand places to one, can't keep a reader longer than a file of this size
warrants. Every other module is one structure, or one message:

    superblock, archive  where the file begins, and how wide its numbers are
    headers, sharing     the messages of an object, and those that several objects share
    dataspace, datatype, layout, pipeline, fill, attributes, links        messages
    groups               the links of a group, in each of the three ways to keep them
    trees, trees2, local_heap, fractal_heap      what groups and attributes are kept in
    global_heap          strings of variable length
    chunk_index, fixed_array, extensible_array   where the chunks of a dataset are
    objects              an object, put together from its messages

(HDF5 File Format Specification Version 3.0; the sections that the modules name are its sections)
"""

from ckpttool.formats.hdf5.structure.archive import is_archive, require_checksum_of_weights
from ckpttool.formats.hdf5.structure.file import File
from ckpttool.formats.hdf5.structure.objects import Dataset, Object, dataset_of
from ckpttool.formats.hdf5.structure.superblock import opened

__all__ = ["Dataset", "File", "Object", "dataset_of", "is_archive", "opened", "require_checksum_of_weights"]
