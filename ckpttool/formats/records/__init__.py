"""The messages of which checkpoints' tables are full, read by hand.

A hundred thousand of them in a fraction of a second, without importing protobuf; and strictly: what can't be is
refused here, before anything is allocated by it. Protobuf's rules hold (unknown fields are passed over, of
several the last one counts); `proto/checkpoint.proto` has the messages in full.

`entries` has those of a bundle's index, `slices` those of V1 files, `shapes` what both have, `strings` the values that
are no plain numbers.
"""
