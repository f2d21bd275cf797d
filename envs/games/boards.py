"""What the small games share."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor import TensorEnv


class SmallGame(TensorEnv):
    """A game of two players without reset options."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 2}
    num_players = 2
    reward_shape = (2,)

    def no_time(self, keys: Tensor, options: dict[str, Any] | None) -> Tensor:
        """Return [N] int64 zeros.

        Raises:
            UsageError: an option is given.
        """
        if options:
            raise UsageError(f"{type(self).__name__} has no reset options, got {sorted(options)}")
        return torch.zeros(keys.shape[0], dtype=torch.int64, device=keys.device)
