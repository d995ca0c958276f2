"""Tests of `benchmarks`, room by room."""
