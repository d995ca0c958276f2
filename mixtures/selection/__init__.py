"""A line belongs here if it decides, from facts and a recipe, which samples and clips stay."""
