"""The upload core: every blob at every target, sent once where it must be sent."""
