"""A line belongs here if it turns what a user asks, and what goes with it, into samples."""
