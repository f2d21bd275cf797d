"""The engine of gradient-based control methods: the only place that differentiates a control loss."""
