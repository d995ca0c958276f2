"""Tests of `mixtures/pool`."""
