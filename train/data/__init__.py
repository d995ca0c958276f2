"""A line belongs here if it turns a manifest, or a user's media, into what the model takes."""
