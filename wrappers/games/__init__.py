"""Games of PettingZoo side by side, for `SingleAgent` and for self-play."""
