"""From published files to a pool: what decoding, comparing and committing cost and find."""
