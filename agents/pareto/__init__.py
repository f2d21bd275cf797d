"""Agents for several objectives: sets of policies, archives and Pareto fronts."""
