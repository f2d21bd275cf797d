"""Tasks as Gymnasium and PettingZoo environments."""
