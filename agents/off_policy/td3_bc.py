"""TD3+BC: TD3 on a dataset, held close to its actions."""

from __future__ import annotations

from typing import Any, Unpack

from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor

from polyathlon.agents.engine import Loss, Method
from polyathlon.agents.parts.keywords import OfflineWords
from polyathlon.agents.parts.offline_losses import q_scale
from polyathlon.envs.errors import check_non_negative, check_positive_int
from polyathlon.registration import register_agent

from .agent import OffPolicy
from .offline import ONLINE_WORDS
from .policy import MethodPolicy
from .td3 import critic, networks, td3, td3_words


def actor(actor: Any, critic: Any, obs: Tensor, action: Tensor, *, alpha: Any = 2.5) -> Tensor:
    """-lambda mean Q_1(s, pi(s)) + mean (pi(s) - a)^2 with lambda = alpha / mean |Q_1|."""
    own = actor(obs).mode()
    q = critic(obs, own)[0]
    return (own - action).square().mean() - q_scale(q, alpha) * q.mean()


td3_bc = Method(
    networks=networks,
    losses=(
        Loss("critic", critic, options={"target_policy_noise": 0.2, "target_noise_clip": 0.5}),
        Loss("actor", actor, every=2, options={"alpha": 2.5}),
    ),
    targets=td3.targets,
    noise=td3.noise,
)


@register_agent("td3_bc", family="off_policy", summary="TD3 held close to the actions of a dataset")
class TD3BC(OffPolicy):
    """TD3+BC (Fujimoto and Gu 2021, "A Minimalist Approach to Offline Reinforcement Learning"), an SB3 algorithm.

    A timestep is a gradient step on the dataset; no environment is needed.

    Args:
        policy: "MlpPolicy", "CnnPolicy" (pictures), "MultiInputPolicy" (a Dict), or a subclass of `MethodPolicy`.
        env: for evaluation and saved spaces; None takes the spaces of the dataset.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        *args: further arguments of `ReplayAgent` in their order.
        alpha: weight of the value against the imitation; 0 imitates, large values are TD3.
        policy_delay: steps of the critics for each step of the actor and the targets.
        target_policy_noise: standard deviation of the noise on the target action.
        target_noise_clip: bound of that noise.
        standardise: give observations the mean 0 and the standard deviation 1 of the dataset.
        **kwargs: `dataset`, `on_disk` of `FromDataset`, and those of `ReplayAgent`.

    Raises:
        UsageError: there is no dataset, or a number is impossible.
    """

    needs_dataset = True
    unread = ONLINE_WORDS
    row = td3_bc

    def __init__(
        self,
        policy: str | type[MethodPolicy],
        env: GymEnv | str | None = None,
        learning_rate: Any = 3e-4,
        *args: Any,
        alpha: float = 2.5,
        policy_delay: int = 2,
        target_policy_noise: float = 0.2,
        target_noise_clip: float = 0.5,
        standardise: bool = True,
        **kwargs: Unpack[OfflineWords],
    ) -> None:
        check_positive_int(policy_delay=policy_delay)
        check_non_negative(alpha=alpha, target_policy_noise=target_policy_noise, target_noise_clip=target_noise_clip)
        self.alpha, self.policy_delay, self.is_standardised = alpha, policy_delay, standardise
        self.target_policy_noise, self.target_noise_clip = target_policy_noise, target_noise_clip
        super().__init__(policy, env, learning_rate, *args, **kwargs)

    def method_words(self, method: Method) -> dict[str, dict[str, object]]:
        """See `OffPolicy.method_words`."""
        return {**super().method_words(method), **td3_words(self), "alpha": {"actor.alpha": float(self.alpha)}}
