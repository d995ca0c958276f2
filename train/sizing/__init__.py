"""A line belongs here if it says on paper what a model or a step costs."""
