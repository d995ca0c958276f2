"""Tests of `train/sizing`."""
