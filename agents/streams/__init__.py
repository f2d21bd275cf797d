"""Any environment as batches of tensors for a rollout."""
