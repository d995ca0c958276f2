"""A line belongs here if it drives stages over Ray; no file format is known here."""
