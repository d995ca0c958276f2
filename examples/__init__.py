"""Small worked examples: the demo and its scenes."""
