"""Runs that differ in one thing each, and what the differences say; not how one run trains."""
