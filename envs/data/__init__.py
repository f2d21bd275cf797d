"""Data sets: Minari's format, files out of pip wheels, and the cache."""
