"""Actor and critic ensemble of RLPD, with their parameters in flat vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule

from polyathlon.agents.parts.flat_adam import FlatAdam

from .ensemble import CriticEnsemble
from .perceptrons import flat_views
from .rlpd_update import RLPDUpdate
from .sac_policy import SquashedGaussianPolicy, flatten_actor


def flatten_ensemble(critic: CriticEnsemble, target: CriticEnsemble, learning_rate: float) -> torch.Tensor:
    """Lay an ensemble's parameters into a flat vector with an optimiser, and its target's into another, which is returned."""
    critic.optimizer = FlatAdam(list(critic.parameters()), lr=learning_rate)
    vector = flat_views(list(target.parameters()))
    vector.copy_(critic.optimizer.vector.data)
    return vector


class EnsemblePolicy(SquashedGaussianPolicy):
    """SB3's actor of SAC and a `CriticEnsemble`.

    Args:
        observation_space: a flat Box.
        action_space: a bounded Box.
        lr_schedule: step size of the remaining progress.
        n_critics: number of critics.
        layer_norm: normalise the critics' hidden layers.
        **kwargs: `net_arch` and so on, of SB3's SAC policy.
    """

    product_dtype = torch.float32
    num_min_critics = 2
    critic: CriticEnsemble  # type: ignore[assignment]
    critic_target: CriticEnsemble  # type: ignore[assignment]

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        *,
        n_critics: int = 10,
        layer_norm: bool = True,
        **kwargs: Any,
    ) -> None:
        self._layer_norm = layer_norm
        super().__init__(observation_space, action_space, lr_schedule, n_critics=n_critics, **kwargs)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> CriticEnsemble:  # type: ignore[override]
        """Return an ensemble; observations are flattened, so there is no extractor."""
        shapes = (self.observation_space.shape, self.action_space.shape)
        settings: dict[str, Any] = self.critic_kwargs
        size = sum(int(np.prod(shape)) for shape in shapes if shape is not None)
        return CriticEnsemble(size, settings["net_arch"], settings["n_critics"], self._layer_norm)

    def flatten_parameters(self) -> None:
        """Lay the parameters into flat vectors; see `SquashedGaussianPolicy`."""
        self._refuse_other_features()
        rate = self.actor.optimizer.param_groups[0]["lr"]
        self._actor_widths = flatten_actor(self.actor, rate)
        self._target = flatten_ensemble(self.critic, self.critic_target, rate)

    def make_update(self, batch_size: int) -> RLPDUpdate:  # type: ignore[override]
        """Return the update of these networks."""
        actor = self.actor.optimizer
        assert isinstance(actor, FlatAdam)
        return RLPDUpdate(
            actor,
            self._actor_widths,
            self.critic,
            self._target,
            int(np.prod(self.observation_space.shape)),  # type: ignore[arg-type]
            int(np.prod(self.action_space.shape)),  # type: ignore[arg-type]
            batch_size,
            self.num_min_critics,
            self.product_dtype,
        )
