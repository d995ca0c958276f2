"""Tests of `train/model`."""
