"""A line belongs here if it turns one unit of work into a receipt; nothing else commits."""
