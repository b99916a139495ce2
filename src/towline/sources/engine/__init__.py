"""Images of a Docker engine, or of Podman's service."""
