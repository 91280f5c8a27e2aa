"""The life of a container, one verb per file."""
