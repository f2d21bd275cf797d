"""Actor-critic agents."""
