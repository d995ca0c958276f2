"""A line belongs here if it reads and checks what a person wrote."""
