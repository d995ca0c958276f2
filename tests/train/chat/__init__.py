"""Tests of `train/chat`."""
