"""Tests of `pipeline/fetch`."""
