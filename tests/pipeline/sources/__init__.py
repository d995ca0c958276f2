"""Tests of `pipeline/sources`."""
