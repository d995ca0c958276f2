"""Held-out questions in, answers and scores out; media pass the same door as training data."""
