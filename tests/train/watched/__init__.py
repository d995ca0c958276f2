"""Figures, held-out loss and curves of runs."""
