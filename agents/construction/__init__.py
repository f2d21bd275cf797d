"""Agents that build the solution of a combinatorial problem node by node: BQ-NCO."""
