"""PRDC: TD3 on a dataset, held close to the nearest pair of state and action in it."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor

from polyathlon.agents.engine import Loss, Method
from polyathlon.agents.parts.keywords import TD3BCWords
from polyathlon.agents.parts.offline_losses import q_scale
from polyathlon.envs.errors import UsageError, check_non_negative
from polyathlon.registration import register_agent

from .policy import MethodPolicy
from .td3 import critic, networks, td3
from .td3_bc import TD3BC

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
class PRDC(TD3BC):
    """PRDC (Ran et al. 2023, "Policy Regularization with Dataset Constraint for Offline Reinforcement Learning").

    TD3 on a dataset whose actor is drawn to the action of the nearest pair (beta s, a), so that it may do in a state what
    was done in a like one. A timestep is a gradient step on the dataset; no environment is needed.

    Args:
        policy: "MlpPolicy", or a subclass of `MethodPolicy`.
        env: for evaluation and saved spaces; None takes the spaces of the dataset.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        *args: further arguments of `ReplayAgent` in their order.
        beta: weight of the state in the distance; large values are TD3+BC, 0 takes the nearest action of all.
        **kwargs: those of `TD3BC`, `dataset` among them; `alpha`, the weight of the value against the distance, is 2.5 for
            Hopper and Walker2d, 40 for HalfCheetah.

    Raises:
        UsageError: there is no dataset, or a number is impossible.
    """

    row = prdc

    def __init__(
        self,
        policy: str | type[MethodPolicy],
        env: GymEnv | str | None = None,
        learning_rate: Any = 3e-4,
        *args: Any,
        beta: float = 2.0,
        **kwargs: Unpack[TD3BCWords],
    ) -> None:
        check_non_negative(beta=beta)
        self.beta = beta
        super().__init__(policy, env, learning_rate, *args, **kwargs)

    def _refuse_observations(self) -> None:
        if not self._is_flat:
            raise UsageError(
                f"PRDC looks for the nearest observation of the dataset, which is defined for vectors, got {self.observation_space}: record "
                "the dataset from polyathlon.wrappers.VectorObservation(env), or use TD3BC"
            )
        super()._refuse_observations()

    def method_words(self, method: Method) -> dict[str, dict[str, object]]:
        """See `OffPolicy.method_words`."""
        words = super().method_words(method)
        words["policy_delay"] = {**words["policy_delay"], "nearest.every": self.policy_delay}
        return {**words, "beta": {"nearest.beta": float(self.beta)}}
