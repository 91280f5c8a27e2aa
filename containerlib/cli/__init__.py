"""The command line in Docker's words."""
