"""The documents of a push: built, converted where they must be, and put, the tag last."""
