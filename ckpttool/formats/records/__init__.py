"""The messages of which checkpoints' tables are full, read by hand.

That takes a fraction of a second for a hundred thousand of them, without importing protobuf, and is strict: what is
impossible is refused here, before anything is allocated for it. Protobuf's rules hold (unknown fields are skipped, the
last of several counts); `proto/checkpoint.proto` has the messages in full.

`entries` has those of a bundle's index, `slices` those of V1 files, `shapes` what both have, `strings` the values that
are no plain numbers.
"""
