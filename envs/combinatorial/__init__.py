"""Combinatorial optimisation."""
