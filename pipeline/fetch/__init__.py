"""A line belongs here if it turns an address into local bytes, by content."""
