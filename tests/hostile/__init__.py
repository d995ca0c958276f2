"""Bad inputs, made on the spot: each function returns them by name."""
