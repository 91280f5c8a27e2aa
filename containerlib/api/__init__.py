"""Public handles: an engine and an id, no logic."""

__all__: list[str] = []
