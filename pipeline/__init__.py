"""The work: published datasets -> pool -> manifest -> WebDataset shards by mixture ratio."""
