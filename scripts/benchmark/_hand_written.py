"""The gradient steps with hand-written derivatives, as peers of the engine's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium as gym
import torch

from polyathlon.agents.off_policy.awac_update import AWACUpdate
from polyathlon.agents.off_policy.bounded_policy import BoundedPolicy
from polyathlon.agents.off_policy.hand_written import HandWrittenSAC
from polyathlon.agents.off_policy.iql_update import IQLUpdate
from polyathlon.agents.off_policy.td3_update import TD3Update
from polyathlon.agents.parts.replay import Transitions

RATE, GAMMA, TAU, NOISE, CLIP = 3e-4, 0.99, 0.005, 0.2, 0.5


class _Implicit(BoundedPolicy):
    has_actor_target: ClassVar[bool] = False
    has_value: ClassVar[bool] = True
    is_gaussian: ClassVar[bool] = True


class _Weighted(BoundedPolicy):
    has_actor_target: ClassVar[bool] = False
    is_gaussian: ClassVar[bool] = True


def _policy(kind: type[BoundedPolicy], env_id: str) -> Any:
    env = gym.make(env_id)
    policy = kind(env.observation_space, env.action_space, lambda _: RATE)  # type: ignore[arg-type]
    policy.flatten_parameters()
    return policy


def hand_written_step(method: str, env_id: str, batch: Transitions) -> Callable[[], None]:
    """Return a gradient step on a minibatch, with its noise.

    Args:
        method: "sac", "td3", "td3_bc", "iql" or "awac".
        env_id: whose sizes the networks have.
        batch: the minibatch.
    """
    generator, rows, count = torch.Generator().manual_seed(0), batch.reward.shape[0], [0]
    if method == "sac":
        agent = HandWrittenSAC("MlpPolicy", env_id, seed=0, device="cpu", buffer_size=10, batch_size=rows)
        sac = agent._ready()
        goal, temperature = agent._entropy_goal, (agent.log_ent_coef, agent.ent_coef_optimizer)
        return lambda: sac.step(batch, *temperature, RATE, GAMMA, TAU, goal, generator)
    if method in ("td3", "td3_bc"):
        td3 = TD3Update(_policy(BoundedPolicy, env_id), rows)

        def step() -> None:
            td3.step(batch, RATE, GAMMA, NOISE, CLIP, generator)
            count[0] += 1
            if count[0] % 2 == 0:
                td3.actor_step(batch, RATE, TAU, 2.5 if method == "td3_bc" else None)

        return step
    if method == "iql":
        iql = IQLUpdate(_policy(_Implicit, env_id), rows)
        return lambda: iql.step(batch, RATE, GAMMA, TAU, 0.7, 3.0, 100.0)
    awac = AWACUpdate(_policy(_Weighted, env_id), rows)
    return lambda: awac.step(batch, RATE, GAMMA, TAU, 1.0, 100.0, generator)
