"""A line belongs here if it holds a conversation between a person and a saved model."""
