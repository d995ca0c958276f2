"""The contract: what a sample is on disk, how it is named, written, found and verified."""
