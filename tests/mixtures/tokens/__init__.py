"""Tests of `mixtures/tokens`."""
