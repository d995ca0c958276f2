"""A line belongs here if it finds the members of a tar or zip, within bounds."""
