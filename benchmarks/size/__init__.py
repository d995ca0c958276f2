"""A line belongs here if it measures a step of curation at a number of rows or clips."""
