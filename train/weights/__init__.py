"""A line belongs here if it says where the weights that a run starts from lie, whether they fit, or
brings them into a model."""
