"""Text tasks as token-level decision processes."""
