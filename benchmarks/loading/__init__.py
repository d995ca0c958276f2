"""From a manifest to packs: throughput, resuming, damage, distance."""
