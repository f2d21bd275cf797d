"""Tasks in words with exact verifiers."""
