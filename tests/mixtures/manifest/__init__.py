"""Tests of `mixtures/manifest`."""
