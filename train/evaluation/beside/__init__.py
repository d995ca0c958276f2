"""A line belongs here if it makes what stands beside a score: floors, other models, submissions."""
