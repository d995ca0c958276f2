"""A line belongs here if it turns questions that are rendered into what a model says to them."""
