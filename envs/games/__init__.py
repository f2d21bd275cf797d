"""Games for several players."""
