"""A line belongs here if it steps, saves or loads a model, on one process or many."""
