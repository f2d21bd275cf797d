"""Continuous and classic control."""
