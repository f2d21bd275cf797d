"""Planners for finite tasks."""
