"""From packs to a model: its cost, its parts, its scores."""
