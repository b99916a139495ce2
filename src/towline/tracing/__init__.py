"""Records where the time of a push goes, and writes it to a file at the end (`--trace`)."""
