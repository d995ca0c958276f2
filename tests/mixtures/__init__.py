"""Tests of `mixtures`, room by room."""
