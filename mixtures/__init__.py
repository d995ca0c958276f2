"""The choice: recipes and the arithmetic on them. A recipe and a pool make a manifest, an order."""
