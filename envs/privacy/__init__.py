"""Training under differential privacy, as an environment whose actions set the clipping and the noise."""
