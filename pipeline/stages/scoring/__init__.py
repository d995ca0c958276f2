"""A line belongs here if it turns scores of one table of a pool into a receipt."""
