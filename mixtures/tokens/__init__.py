"""A line belongs here if it says which tokens a sample has."""
