"""A line belongs here if it reads one published annotation format: one module a format."""
