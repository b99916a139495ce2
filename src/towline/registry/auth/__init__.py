"""Who is let in at a registry, and as whom."""
