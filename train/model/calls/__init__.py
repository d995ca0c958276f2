"""A line belongs here if it takes calls under the names that transformers has for them."""
