"""A line belongs here if it turns a model, questions and media into answers and scores."""
