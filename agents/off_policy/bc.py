"""Behaviour cloning."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv

from polyathlon.agents.parts.replay import Transitions
from polyathlon.envs.errors import unknown_name
from polyathlon.registration import register_agent

from .bounded_policy import BoundedPolicy
from .bounded_update import BoundedActor
from .critics_update import GradientStep
from .offline import OfflineAgent

LOSSES = ("log_prob", "mse")


class ImitationPolicy(BoundedPolicy):
    """A Gaussian actor alone."""

    has_actor_target, has_critics, is_gaussian = False, False, True

    def make_update(self, batch_size: int) -> BCUpdate:
        """Return the gradient step of these networks."""
        return BCUpdate(self, batch_size)


class BCUpdate(GradientStep):
    """Gradient steps of imitation.

    Args:
        policy: a Gaussian actor.
        batch_size: B.
    """

    metric_names = ("loss", "squared_error")

    def __init__(self, policy: BoundedPolicy, batch_size: int) -> None:
        self.actor = BoundedActor(policy, batch_size)
        super().__init__(batch_size, self.actor.adam.gradient)

    @torch.no_grad()
    def step(self, batch: Transitions, learning_rate: float, loss: str) -> None:
        """Take one step on -mean log pi(a | s) ("log_prob") or on the mean of (pi(s) - a)^2 ("mse")."""
        error = self.actor.mean(batch.obs) - batch.action
        squared = error.square().mean()
        if loss == "log_prob":
            value, _ = self.actor.imitate(batch.obs, batch.action, None, learning_rate)
        else:
            self.actor.log_std_gradient.zero_()
            value = squared
            self.actor.step(batch.obs, error.mul_(2 / error.numel()), learning_rate)
        self._record(value, squared)


@register_agent("bc", family="off_policy", summary="behaviour cloning of a dataset")
class BC(OfflineAgent):
    """Behaviour cloning: the actions of a dataset, imitated.

    A timestep is a gradient step on the dataset; no environment is needed.

    Args:
        policy: "MlpPolicy", or a subclass of `ImitationPolicy`.
        env: for evaluation and saved spaces; None takes the spaces of the dataset.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        *args: further arguments of `OffPolicyAgent` in their order.
        loss: "log_prob" fits a Gaussian whose standard deviations do not depend on the state, "mse" its mean alone.
        **kwargs: `dataset`, `on_disk` of `OfflineAgent`, and those of `OffPolicyAgent`.

    Raises:
        UsageError: there is no dataset, or an argument is unknown.
    """

    needs_dataset, needs_demonstrations = True, True
    optimizers = ("actor",)
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": ImitationPolicy}
    policy: ImitationPolicy
    _update: BCUpdate | None

    def __init__(
        self,
        policy: str | type[ImitationPolicy],
        env: GymEnv | str | None = None,
        learning_rate: Any = 3e-4,
        *args: Any,
        loss: str = "log_prob",
        **kwargs: Any,
    ) -> None:
        if loss not in LOSSES:
            raise unknown_name("loss", loss, LOSSES)
        self.loss = loss
        super().__init__(policy, env, learning_rate, *args, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        self.actor = self.policy.actor

    def _gradient_step(self, batch: Transitions, learning_rate: float) -> None:
        assert self._update is not None
        self._update.step(batch, learning_rate, self.loss)
