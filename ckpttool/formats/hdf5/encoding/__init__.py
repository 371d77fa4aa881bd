"""What an HDF5 file is made of, as bytes to be written: the reverse of `structure`, in the same words.

    0     superblock: how wide numbers are, where the file ends, the root group
    96    the values of datasets, each in one piece, at places that are known before anything is written
    …     chunks and their indexes, global heaps, headers of datasets, groups; each behind what it leads to

Everything is of the oldest version that there is, which every reader knows, and which the HDF5 library chooses too:
superblock 0, object headers 1, groups with symbol tables, attributes 1, B-trees 1. Nothing is ever written twice, and
an address is known when it is needed, because what it leads to was written before.

    output      structures one behind another, and their addresses
    messages    object headers, and the messages in them
    trees       B-trees, for groups and for chunks
    groups      groups, their names and links
    heap        strings of variable length

(HDF5 File Format Specification Version 3.0)
"""
