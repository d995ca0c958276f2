"""A line belongs here if it reads columns of a pool for planning."""
