"""The command: words to a call of the library, and its events, result or error back to words."""
