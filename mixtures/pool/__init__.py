"""A line belongs here if it turns what a pool holds into columns for planning."""
