"""What a checkpoint and a graph are: no bytes on disk, no terminal."""
