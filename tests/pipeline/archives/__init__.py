"""Tests of `pipeline/archives`."""
