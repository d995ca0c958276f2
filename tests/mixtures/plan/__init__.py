"""Tests of `mixtures/plan`."""
