"""Agents that learn from their own newest episodes: PPO and PMOEPPO."""
