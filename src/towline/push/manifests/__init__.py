"""The documents of a push: built, converted where they must be, put, and looked at again."""
