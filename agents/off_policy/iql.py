"""Implicit Q-learning, offline and on from there online."""

from __future__ import annotations

from typing import Any, ClassVar

from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv

from polyathlon.agents.parts.replay import Transitions
from polyathlon.envs.errors import UsageError, check_non_negative
from polyathlon.registration import register_agent

from .bounded_policy import BoundedPolicy
from .iql_update import IQLUpdate
from .offline import OfflineAgent


class ImplicitPolicy(BoundedPolicy):
    """A Gaussian actor, twin critics and a value."""

    has_actor_target, has_value, is_gaussian = False, True, True

    def make_update(self, batch_size: int) -> IQLUpdate:
        """Return the gradient step of these networks."""
        return IQLUpdate(self, batch_size)


@register_agent("iql", family="off_policy", summary="implicit Q-learning, from a dataset and on online")
class IQL(OfflineAgent):
    """IQL (Kostrikov et al. 2021, "Offline Reinforcement Learning with Implicit Q-Learning"), an SB3 algorithm.

    With a dataset, a timestep is a gradient step on it; `offline_steps` makes it go on online.

    Args:
        policy: "MlpPolicy", or a subclass of `ImplicitPolicy`.
        env: see `OfflineAgent`.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        *args: further arguments of `OffPolicyAgent` in their order.
        expectile: of the value, 0.5 is the behaviour's, towards 1 the best action's. 0.7 for locomotion, 0.9 for mazes.
        beta: inverse temperature of the actor's weights exp(beta advantage): 3 for locomotion, 10 for mazes.
        max_weight: bound of these weights.
        **kwargs: `dataset`, `offline_steps`, `on_disk` of `OfflineAgent`, and those of `OffPolicyAgent`.

    Raises:
        UsageError: a number is impossible, or the environment or the dataset does not fit.
    """

    optimizers = ("actor", "critic", "value_net")
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": ImplicitPolicy}
    policy: ImplicitPolicy
    _update: IQLUpdate | None

    def __init__(
        self,
        policy: str | type[ImplicitPolicy],
        env: GymEnv | str | None = None,
        learning_rate: Any = 3e-4,
        *args: Any,
        expectile: float = 0.7,
        beta: float = 3.0,
        max_weight: float = 100.0,
        **kwargs: Any,
    ) -> None:
        if not 0 < expectile < 1:
            raise UsageError(f"expectile must lie between 0 and 1, got {expectile!r}")
        check_non_negative(beta=beta, max_weight=max_weight)
        self.expectile, self.beta, self.max_weight = expectile, beta, max_weight
        super().__init__(policy, env, learning_rate, *args, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        self.actor, self.critic, self.critic_target = self.policy.actor, self.policy.critic, self.policy.critic_target

    def _gradient_step(self, batch: Transitions, learning_rate: float) -> None:
        assert self._update is not None
        self._update.step(batch, learning_rate, self.gamma, self.tau, self.expectile, self.beta, self.max_weight)
