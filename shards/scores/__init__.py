"""A line belongs here if it finds scores of a pool by what they are scores of."""
