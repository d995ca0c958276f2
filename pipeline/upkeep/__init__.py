"""A line belongs here if it says what lies in a pool, who needs it, removes or hands it out."""
