"""A line belongs here if it puts recipe, pool, selection and order together into a manifest."""
