"""A module belongs here if it says what runs that were not made would come to."""
