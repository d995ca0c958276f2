"""From a pool to a manifest: ratio, order, packing, and planning at scale."""
