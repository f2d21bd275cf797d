"""Combinatorial optimisation: instances, solvers, pictures of tours, and the tasks built on them."""
