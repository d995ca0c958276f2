"""Tests of `pipeline/jobs`."""
