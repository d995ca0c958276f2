"""What is claimed is measured here, against the peer a user would pick, in one run, as a ratio."""
