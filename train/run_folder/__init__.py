"""A run's --out beside its checkpoints and model: whose it is, what it was told, how it ended."""
