"""A line belongs here if it turns foreign bytes into frames of our own; only here ffmpeg runs."""
