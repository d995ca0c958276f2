"""Tests of `shards`, room by room."""
