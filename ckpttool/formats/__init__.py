"""Files ↔ models: one module a format. Here bytes and checkpoints meet, and nowhere else."""
