"""Registries: their names, credentials, tokens, requests and upload sessions.

Whatever asks a registry raises AuthError, RegistryError and NetworkError, unless it says otherwise.
"""
