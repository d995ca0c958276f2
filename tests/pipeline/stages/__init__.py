"""Tests of `pipeline/stages`."""
