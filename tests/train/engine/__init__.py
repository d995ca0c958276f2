"""Tests of `train/engine`."""
