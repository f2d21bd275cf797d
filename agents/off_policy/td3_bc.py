"""TD3+BC: TD3 on a dataset, held close to its actions."""

from __future__ import annotations

from typing import Any, ClassVar

from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv

from polyathlon.agents.parts.replay import Transitions
from polyathlon.envs.errors import check_non_negative, check_positive_int
from polyathlon.registration import register_agent

from .bounded_policy import Standardised
from .offline import OfflineAgent
from .td3 import DeterministicPolicy
from .td3_update import TD3Update


class StandardisedPolicy(DeterministicPolicy):
    """The networks of TD3 behind a standardisation of the observations, which TD3+BC takes from its dataset."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"features_extractor_class": Standardised, **kwargs})


@register_agent("td3_bc", family="off_policy", summary="TD3 held close to the actions of a dataset")
class TD3BC(OfflineAgent):
    """TD3+BC (Fujimoto and Gu 2021, "A Minimalist Approach to Offline Reinforcement Learning"), an SB3 algorithm.

    A timestep is a gradient step on the dataset; no environment is needed.

    Args:
        policy: "MlpPolicy", or a subclass of `StandardisedPolicy`.
        env: for evaluation and saved spaces; None takes the spaces of the dataset.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        *args: further arguments of `OffPolicyAgent` in their order.
        alpha: weight of the value against the imitation; 0 imitates, large values are TD3.
        policy_delay: steps of the critics for each step of the actor and the targets.
        target_policy_noise: standard deviation of the noise on the target action.
        target_noise_clip: bound of that noise.
        standardise: give observations the mean 0 and the standard deviation 1 of the dataset.
        **kwargs: `dataset`, `on_disk` of `OfflineAgent`, and those of `OffPolicyAgent`.

    Raises:
        UsageError: there is no dataset, or a number is impossible.
    """

    needs_dataset = True
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": StandardisedPolicy}
    policy: StandardisedPolicy
    _update: TD3Update | None

    def __init__(
        self,
        policy: str | type[StandardisedPolicy],
        env: GymEnv | str | None = None,
        learning_rate: Any = 3e-4,
        *args: Any,
        alpha: float = 2.5,
        policy_delay: int = 2,
        target_policy_noise: float = 0.2,
        target_noise_clip: float = 0.5,
        standardise: bool = True,
        **kwargs: Any,
    ) -> None:
        check_positive_int(policy_delay=policy_delay)
        check_non_negative(alpha=alpha, target_policy_noise=target_policy_noise, target_noise_clip=target_noise_clip)
        self.alpha, self.policy_delay, self.is_standardised = alpha, policy_delay, standardise
        self.target_policy_noise, self.target_noise_clip = target_policy_noise, target_noise_clip
        super().__init__(policy, env, learning_rate, *args, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        self.actor, self.actor_target = self.policy.actor, self.policy.actor_target
        self.critic, self.critic_target = self.policy.critic, self.policy.critic_target

    def _gradient_step(self, batch: Transitions, learning_rate: float) -> None:
        update = self._update
        assert update is not None
        update.step(batch, learning_rate, self.gamma, self.target_policy_noise, self.target_noise_clip, self.generator)
        if self._n_updates % self.policy_delay == 0:
            update.actor_step(batch, learning_rate, self.tau, self.alpha)
