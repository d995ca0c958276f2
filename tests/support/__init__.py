"""What several tests need: small worlds, made pools, servers that fail."""
