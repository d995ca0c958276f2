"""What a person watches of a run: how fast it is, its held-out loss, its curves."""
