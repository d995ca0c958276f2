"""Tests of `examples`, room by room."""
