"""A line belongs here if it is near-duplicate arithmetic, without a pool."""
