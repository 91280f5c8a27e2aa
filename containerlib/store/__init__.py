"""What lies on disk, and nothing about where it came from."""
