"""NetHack through NLE's game library: one game, many games at once, and the game in words."""
