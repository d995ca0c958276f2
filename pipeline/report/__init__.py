"""A line belongs here if it shows people what a build did."""
