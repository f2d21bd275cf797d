"""PRDC: TD3 on a dataset, held close to the nearest pair of state and action in it."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor

from polyathlon.agents.engine import Loss, Method
from polyathlon.agents.parts.offline_losses import q_scale
from polyathlon.envs.errors import check_non_negative, check_positive_int
from polyathlon.registration import register_agent

from .agent import OffPolicy
from .offline import ONLINE_WORDS
from .policy import MethodPolicy
from .td3 import critic, networks, td3, td3_words

ROWS_AT_ONCE = 1 << 16  # of the dataset, whose distances to a minibatch lie in memory at a time


def nearest(
    actor: Any, obs: Tensor, dataset_obs: Tensor, dataset_action: Tensor, *, beta: Any = 2.0
) -> dict[str, Tensor]:
    """The action a_j of the dataset with the least |(beta s, pi(s)) - (beta s_j, a_j)|, exact up to rounding."""
    query = torch.cat([beta * obs, actor(obs).mode()], 1)
    parts = zip(dataset_obs.split(ROWS_AT_ONCE), dataset_action.split(ROWS_AT_ONCE))
    least = [torch.cdist(query, torch.cat([beta * s, a], 1)).min(1) for s, a in parts]
    part = torch.stack([found.values for found in least]).argmin(0)
    row = torch.stack([found.indices for found in least]).gather(0, part[None])[0]
    return {"nearest_action": dataset_action[part * ROWS_AT_ONCE + row]}


def actor(
    actor: Any, critic: Any, obs: Tensor, nearest_action: Tensor, *, alpha: Any = 2.5
) -> tuple[Tensor, dict[str, Tensor]]:
    """-lambda mean Q_1(s, pi(s)) + mean (pi(s) - a_j)^2 with lambda = alpha / mean |Q_1|."""
    action = actor(obs).mode()
    q = critic(obs, action)[0]
    distance = (action - nearest_action).square().mean()
    return distance - q_scale(q, alpha) * q.mean(), {"distance": distance}


prdc = Method(
    networks=networks,
    losses=(
        Loss("critic", critic, options={"target_policy_noise": 0.2, "target_noise_clip": 0.5}),
        Loss(None, nearest, every=2, publishes=("nearest_action",), options={"beta": 2.0}),
        Loss("actor", actor, every=2, options={"alpha": 2.5}),
    ),
    targets=td3.targets,
    noise=td3.noise,
    constants=("dataset_obs", "dataset_action"),
)


@register_agent("prdc", family="off_policy", summary="TD3 held close to the nearest state and action of a dataset")
class PRDC(OffPolicy):
    """PRDC (Ran et al. 2023, "Policy Regularization with Dataset Constraint for Offline Reinforcement Learning").

    TD3 on a dataset whose actor is drawn to the action of the nearest pair (beta s, a), so that it may do in a state what
    was done in a like one. A timestep is a gradient step on the dataset; no environment is needed.

    Args:
        policy: "MlpPolicy", or a subclass of `MethodPolicy`.
        env: for evaluation and saved spaces; None takes the spaces of the dataset.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        *args: further arguments of `ReplayAgent` in their order.
        alpha: weight of the value against the distance: 2.5 for Hopper and Walker2d, 40 for HalfCheetah.
        beta: weight of the state in the distance; large values are TD3+BC, 0 takes the nearest action of all.
        policy_delay: steps of the critics for each step of the actor and the targets.
        target_policy_noise: standard deviation of the noise on the target action.
        target_noise_clip: bound of that noise.
        standardise: give observations the mean 0 and the standard deviation 1 of the dataset.
        **kwargs: those of `OffPolicy`, `dataset` among them.

    Raises:
        UsageError: there is no dataset, or a number is impossible.
    """

    row = prdc
    needs_dataset = True
    unread = ONLINE_WORDS

    def __init__(
        self,
        policy: str | type[MethodPolicy],
        env: GymEnv | str | None = None,
        learning_rate: Any = 3e-4,
        *args: Any,
        alpha: float = 2.5,
        beta: float = 2.0,
        policy_delay: int = 2,
        target_policy_noise: float = 0.2,
        target_noise_clip: float = 0.5,
        standardise: bool = True,
        **kwargs: Any,
    ) -> None:
        check_positive_int(policy_delay=policy_delay)
        check_non_negative(alpha=alpha, beta=beta, target_policy_noise=target_policy_noise)
        check_non_negative(target_noise_clip=target_noise_clip)
        self.alpha, self.beta, self.policy_delay, self.is_standardised = alpha, beta, policy_delay, standardise
        self.target_policy_noise, self.target_noise_clip = target_policy_noise, target_noise_clip
        super().__init__(policy, env, learning_rate, *args, **kwargs)

    def method_words(self, method: Method) -> dict[str, dict[str, object]]:
        """See `OffPolicy.method_words`."""
        words = {**super().method_words(method), **td3_words(self)}
        words["policy_delay"] = {**words["policy_delay"], "nearest.every": self.policy_delay}
        return {**words, "alpha": {"actor.alpha": float(self.alpha)}, "beta": {"nearest.beta": float(self.beta)}}
