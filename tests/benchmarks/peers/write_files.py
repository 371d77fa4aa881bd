"""The bytes of a file as so many files, made one after another, and nothing else: FILE NUMBER DIRECTORY."""

import sys
from pathlib import Path

source, number, directory = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
nbytes = -(-source.stat().st_size // number)
directory.mkdir()
with source.open("rb", 0) as file:
    for i in range(number):
        (directory / str(i)).write_bytes(file.read(nbytes))
