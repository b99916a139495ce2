"""What the specifications say, as values and pure functions (image-spec, distribution-spec)."""
