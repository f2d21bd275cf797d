"""What the methods share, as pure functions on tensors."""
