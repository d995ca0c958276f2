"""Tiny random weights in exactly the layouts in which real ones are published."""
