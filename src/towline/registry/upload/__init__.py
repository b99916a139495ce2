"""A blob on its way to a registry."""
