"""TD3 learns as Stable-Baselines3's TD3 does: from random play to the top of Pendulum at equal steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from _claim import Claim, Comparison, Control, Run, main
from _learning import Scale, learn, scored, without_learning

STEPS, EVALUATIONS, EPISODES, FIRST = 4_000, 4, 5, 1
SCALE = Scale(-1_200.0, -150.0)
MARGIN, FAR, NOISE = 0.2, 0.5, 0.1
SETTINGS: dict[str, Any] = {
    "learning_rate": 2e-3,
    "batch_size": 64,
    "gamma": 0.97,
    "tau": 0.02,
    "learning_starts": 500,
    "buffer_size": STEPS,
    "policy_kwargs": {"net_arch": [64, 64]},
    "device": "cpu",
}


def _run(agent: Any, seed: int, task: str, steps: int = STEPS) -> Run:
    return scored(learn(agent, task, seed, steps, EVALUATIONS, EPISODES), SCALE, FIRST)


def _ours(seed: int, task: str) -> Any:
    from polyathlon.agents import TD3

    return TD3("MlpPolicy", task, exploration_noise=NOISE, seed=seed, **SETTINGS)


def _sb3(seed: int, task: str) -> Any:
    from stable_baselines3 import TD3
    from stable_baselines3.common.noise import NormalActionNoise

    noise = NormalActionNoise(np.zeros(1), np.full(1, NOISE))
    return TD3("MlpPolicy", task, action_noise=noise, seed=seed, **SETTINGS)


def ours(seed: int, task: str) -> Run:
    """Train this package's TD3."""
    return _run(_ours(seed, task), seed, task)


def sb3(seed: int, task: str) -> Run:
    """Train SB3's."""
    return _run(_sb3(seed, task), seed, task)


def start(seed: int, task: str) -> Run:
    """Evaluate SB3's before it has learnt anything."""
    return _run(_sb3(seed, task), seed, task, steps=0)


def idle(seed: int, task: str) -> Run:
    """Let this package's TD3 act for as long, with gradient steps that do nothing."""
    return _run(without_learning(_ours(seed, task)), seed, task)


CLAIM = Claim(
    name="td3_learns_as_sb3",
    statement="TD3 learns Pendulum as Stable-Baselines3's TD3 does at equal steps: "
    f"both get further than {FAR} above the untrained policy, and differ by at most {MARGIN}.",
    source="Stable-Baselines3 2.9.2, stable_baselines3/td3/td3.py",
    metric="mean evaluated return over the last three quarters of training, from 0 (random actions) to 1 (a fixed good return)",
    arms={"polyathlon": ours, "SB3": sb3, "SB3, untrained": start, "polyathlon, train does nothing": idle},
    comparisons=[
        Comparison("polyathlon", "SB3, untrained", "higher", margin=FAR),
        Comparison("SB3", "SB3, untrained", "higher", margin=FAR),
        Comparison("polyathlon", "SB3", "equal", margin=MARGIN),
    ],
    controls=[Control("polyathlon, train does nothing", ("polyathlon", "SB3"))],
    tasks=("Pendulum-v1",),
    seeds=12,
    curve="evaluated return, from 0 (random actions) to 1",
    setting=(
        f"{STEPS:,} steps, 500 of them random first, two layers of 64, batches of 64, learning rate 2e-3, discount 0.97, "
        f"tau 0.02, exploration noise {NOISE}; 0 is {SCALE.random:g} and 1 is {SCALE.good:g}. Every quarter is evaluated with "
        f"{EPISODES} episodes without noise."
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(CLAIM))
