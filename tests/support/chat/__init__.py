"""A line belongs here if it is a small model that is talked to as users of transformers do."""
