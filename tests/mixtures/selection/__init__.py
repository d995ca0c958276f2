"""Tests of `mixtures/selection`."""
