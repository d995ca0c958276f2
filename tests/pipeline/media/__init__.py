"""Tests of `pipeline/media`."""
