"""Each call to a registry as a value."""
