"""Tests of `mixtures/recipe`."""
