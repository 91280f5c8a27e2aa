"""The one door to C. Nothing else in the package imports the compiled module."""

__all__: list[str] = []
