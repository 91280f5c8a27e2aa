"""Registries: a client for all there are, and a server in this process."""
