"""Registries: their names, credentials, tokens, requests and upload sessions."""
