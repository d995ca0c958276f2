"""A line belongs here if it is the frozen plan, its files, or the sampler over it."""
