"""What a player sees as numbers: the parts of the observation, their sizes and their order."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from .config import ROLES, WerewolfConfig

PRIVATE = ("self", "role", "known", "proposals", "protected")
OBSERVATIONS = ("vector", "dict")


class Layout:
    """The parts of the structured observation.

    | part | shape | what |
    |---|---|---|
    | self | n | who looks, one-hot |
    | role | 4 | the own role, one-hot: villager, werewolf, seer, doctor |
    | known | n x 4 | roles known: the own, werewolves to each other, what the Seer learned (a player that is no werewolf has 1 in the other three), of the dead where they are revealed |
    | proposals | n | werewolves at night: how many have named each player so far |
    | protected | n | the Doctor: whom it protected last, one-hot |
    | round | 1 | the number of the round, from 1 |
    | phase | 3 to 5 | night, talk, vote (bid, last_words where the rules have them), one-hot; 0 after the end |
    | alive | n | 1 where alive |
    | deaths | n x 2 | 1 where killed at night, where voted out |
    | votes | R x n x (n + 1) | of the last R rounds, this one first: whom each player named (n: pass), one-hot; 0 where nothing |
    | speech | R x S x n x (4 + n) | of the last R rounds, each of the S speeches of each player: accuse, vouch, claim, silent, and about whom, one-hot |

    Attributes:
        parts: name -> shape.
        where: name -> slice of the vector in which all parts follow each other, private ones first.
        size: length of the vector.
        num_private: how many numbers of it are private.
        phases: the phases that the rules have.
    """

    def __init__(self, config: WerewolfConfig, history: int) -> None:
        n = config.num_players
        self.config, self.history = config, history
        self.phases = (0, 1, 2) + ((3,) if config.has_bids else ()) + ((4,) if config.last_words else ())
        self.parts: dict[str, tuple[int, ...]] = {
            "self": (n,),
            "role": (len(ROLES),),
            "known": (n, len(ROLES)),
            "proposals": (n,),
            "protected": (n,),
            "round": (1,),
            "phase": (len(self.phases),),
            "alive": (n,),
            "deaths": (n, 2),
            "votes": (history, n, n + 1),
            "speech": (history, config.num_slots, n, 4 + n),
        }
        self.where: dict[str, slice] = {}
        start = 0
        for name, shape in self.parts.items():
            stop = start + int(np.prod(shape))
            self.where[name] = slice(start, stop)
            start = stop
        self.size = start
        self.num_private = self.where["round"].start

    def space(self, observation: str) -> spaces.Space[Any]:
        """Return the space of the "vector" or of the "dict" form."""
        highest = {"round": self.config.max_rounds, "proposals": self.config.num_players}
        if observation == "vector":
            high = np.ones(self.size, np.int8)
            for name, value in highest.items():
                high[self.where[name]] = value
            return spaces.Box(np.zeros(self.size, np.int8), high, dtype=np.int8)
        parts = [(name, spaces.Box(0, highest.get(name, 1), shape, np.int8)) for name, shape in self.parts.items()]
        return spaces.Dict(parts)

    def split(self, vector: Any) -> dict[str, Any]:
        """Return the parts of vectors [..., size], tensors or arrays, as views."""
        return {
            name: vector[..., self.where[name]].reshape(*vector.shape[:-1], *shape)
            for name, shape in self.parts.items()
        }
