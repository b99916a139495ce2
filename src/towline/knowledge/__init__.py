"""Remembers which blobs a layer became, and who holds them. No policy: it answers and forgets."""
