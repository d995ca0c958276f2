"""The published configs at full depth, on weights and data that are made and narrow."""
