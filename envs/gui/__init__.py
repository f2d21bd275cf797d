"""Tasks on pages: a real browser, and a synthetic page on tensors."""
