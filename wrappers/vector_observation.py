"""Any observation as one vector of numbers."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from polyathlon.envs.errors import check_int, check_positive_int

from .encoders import encoder_of


class VectorObservation(
    gym.ObservationWrapper[NDArray[np.float32], Any, Any],
    gym.utils.RecordConstructorArgs,
):
    """Turns observations of any space into a flat float32 Box by fixed encoders, so that any agent can read any task.

    | observation | numbers |
    |---|---|
    | Box, MultiBinary | the numbers, flattened |
    | a picture (H, W, C) of uint8 | its averages over 12 x 12 fields, in [0, 1] |
    | Discrete, MultiDiscrete | one-hot (binary digits above 1,024 choices) |
    | text | signed counts of byte n-grams in hashed buckets, scaled to length 1, and the length |
    | tokens | a fixed random projection of the last tokens in order, the mean of all, and the length |
    | a NetHack level (`glyphs`, `blstats`) | fixed random vectors of the glyphs round the hero, squashed numbers, the message as text |
    | Dict, Tuple | its parts, one after the other (a Dict in the order of its keys) |

    Nothing is learnt and nothing random: the same observation gives the same vector in every process. Actions, rewards,
    action masks and infos pass unchanged.

    Args:
        env: the environment.
        text_features: numbers for each text.
        token_window: number of last tokens that are written in order.
        token_width: numbers for each of them.

    Raises:
        UsageError: a size is not positive, or the space has no fixed number of elements.
    """

    def __init__(
        self, env: gym.Env[Any, Any], text_features: int = 256, token_window: int = 16, token_width: int = 16
    ) -> None:
        check_int(2, text_features=text_features)
        check_positive_int(token_window=token_window, token_width=token_width)
        gym.utils.RecordConstructorArgs.__init__(
            self, text_features=text_features, token_window=token_window, token_width=token_width
        )
        gym.ObservationWrapper.__init__(self, env)
        self.encoder = encoder_of(env.observation_space, text_features, token_window, token_width)
        self.observation_space = spaces.Box(self.encoder.low, self.encoder.high, dtype=np.float32)

    def observation(self, observation: Any) -> NDArray[np.float32]:
        """Return the vector of an observation."""
        vector = np.empty(self.encoder.size, np.float32)
        self.encoder.write(observation, vector)
        return vector

    def rows(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> gym.vector.VectorEnv[Any, Any, Any]:
        """Return rows of a tensor task (torch output) behind this wrapper; each sees what a scalar environment would show."""
        from .rows import FlatRows

        return FlatRows(env, self.encoder, self.observation_space)
