"""Advantage-weighted actor-critic, offline and on from there online."""

from __future__ import annotations

from typing import Any, ClassVar

from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv

from polyathlon.agents.parts.replay import Transitions
from polyathlon.envs.errors import check_non_negative
from polyathlon.registration import register_agent

from .awac_update import AWACUpdate
from .bounded_policy import BoundedPolicy
from .offline import OfflineAgent


class AdvantageWeightedPolicy(BoundedPolicy):
    """A Gaussian actor and twin critics."""

    has_actor_target, is_gaussian = False, True

    def make_update(self, batch_size: int) -> AWACUpdate:
        """Return the gradient step of these networks."""
        return AWACUpdate(self, batch_size)


@register_agent("awac", family="off_policy", summary="advantage-weighted actor-critic, from a dataset and on online")
class AWAC(OfflineAgent):
    """AWAC (Nair et al. 2020, "Accelerating Online Reinforcement Learning with Offline Datasets"), an SB3 algorithm.

    With a dataset, a timestep is a gradient step on it; `offline_steps` makes it go on online, from the same memory.

    Args:
        policy: "MlpPolicy", or a subclass of `AdvantageWeightedPolicy`.
        env: see `OfflineAgent`.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        *args: further arguments of `OffPolicyAgent` in their order.
        beta: 1 / lambda of the actor's weights exp(advantage / lambda): large values imitate only the best actions.
        max_weight: bound of these weights.
        **kwargs: `dataset`, `offline_steps`, `on_disk` of `OfflineAgent`, and those of `OffPolicyAgent`.

    Raises:
        UsageError: a number is impossible, or the environment or the dataset does not fit.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": AdvantageWeightedPolicy}
    policy: AdvantageWeightedPolicy
    _update: AWACUpdate | None

    def __init__(
        self,
        policy: str | type[AdvantageWeightedPolicy],
        env: GymEnv | str | None = None,
        learning_rate: Any = 3e-4,
        *args: Any,
        beta: float = 1.0,
        max_weight: float = 100.0,
        **kwargs: Any,
    ) -> None:
        check_non_negative(beta=beta, max_weight=max_weight)
        self.beta, self.max_weight = beta, max_weight
        super().__init__(policy, env, learning_rate, *args, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        self.actor, self.critic, self.critic_target = self.policy.actor, self.policy.critic, self.policy.critic_target

    def _gradient_step(self, batch: Transitions, learning_rate: float) -> None:
        assert self._update is not None
        self._update.step(batch, learning_rate, self.gamma, self.tau, self.beta, self.max_weight, self.generator)
