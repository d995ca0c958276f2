"""Tests of `pipeline/dedup`."""
