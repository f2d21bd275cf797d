"""Faces of a tensor task: Gymnasium, vector, Stable-Baselines3 and PettingZoo."""
