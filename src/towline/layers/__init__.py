"""A layer's bytes become a blob's bytes, in one pass."""
