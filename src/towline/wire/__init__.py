"""HTTP/1.1 that has never heard of registries."""
