"""Pools, sources and manifests made by seed, for what is measured."""
