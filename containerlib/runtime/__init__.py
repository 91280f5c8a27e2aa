"""From options to an isolated process."""
