"""A line belongs here if it is integer arithmetic on positions."""
