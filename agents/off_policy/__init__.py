"""Agents that learn from a replay buffer or a dataset: SAC, TD3, PMOE, EXPO, RLPD and the offline agents."""
