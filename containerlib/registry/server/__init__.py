"""A registry that speaks the OCI distribution protocol. It does not know the engine's store."""
