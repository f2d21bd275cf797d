"""Games of several players: seats, self-play against a pool of past selves, matches, ratings."""
