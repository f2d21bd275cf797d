"""polyathlon: one arena for every kind of policy."""

__version__ = "0.1.0"
