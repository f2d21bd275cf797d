"""TD3 learns as Stable-Baselines3's TD3 does: equal curves on Pendulum at equal steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from _claim import Claim, Comparison, Run, main

STEPS, EVALUATIONS, EPISODES = 4_000, 4, 5
RANDOM, GOOD = -1_200.0, -150.0
NOISE = 0.1
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


def _score(agent: Any, seed: int) -> float:
    """Return the mean return of a few deterministic episodes, from 0 (random) to 1 (good)."""
    import gymnasium as gym
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor

    env = Monitor(gym.make("Pendulum-v1"))
    env.reset(seed=10_000 * (seed + 1))
    mean, _ = evaluate_policy(agent, env, n_eval_episodes=EPISODES)
    return (float(np.mean(mean)) - RANDOM) / (GOOD - RANDOM)


def _train(agent: Any, seed: int) -> Run:
    curve = []
    for k in range(EVALUATIONS):
        agent.learn(STEPS // EVALUATIONS, reset_num_timesteps=k == 0)
        curve.append((float(agent.num_timesteps), _score(agent, seed)))
    return Run(float(np.mean([score for _, score in curve[1:]])), curve)


def ours(seed: int, task: str) -> Run:
    """Train this package's TD3."""
    import torch

    from polyathlon.agents import TD3

    torch.set_num_threads(1)
    return _train(TD3("MlpPolicy", task, exploration_noise=NOISE, seed=seed, **SETTINGS), seed)


def sb3(seed: int, task: str) -> Run:
    """Train SB3's."""
    import torch
    from stable_baselines3 import TD3
    from stable_baselines3.common.noise import NormalActionNoise

    torch.set_num_threads(1)
    noise = NormalActionNoise(np.zeros(1), np.full(1, NOISE))
    return _train(TD3("MlpPolicy", task, action_noise=noise, seed=seed, **SETTINGS), seed)


CLAIM = Claim(
    name="td3_learns_as_sb3",
    statement="TD3 learns as Stable-Baselines3's TD3 does at equal steps.",
    source="Stable-Baselines3 2.9.2, stable_baselines3/td3/td3.py",
    metric="mean evaluated return over the last three quarters of training, from 0 (random actions) to 1 (a fixed good return)",
    arms={"polyathlon": ours, "SB3": sb3},
    comparisons=[Comparison("polyathlon", "SB3", "equal", margin=0.2)],
    tasks=("Pendulum-v1",),
    seeds=8,
    step_label="environment steps",
    setting=(
        f"{STEPS:,} steps, 500 of them random first, two layers of 64, batches of 64, learning rate 2e-3, discount 0.97, "
        f"tau 0.02, exploration noise {NOISE}; 0 is {RANDOM:g} and 1 is {GOOD:g}. Every quarter is evaluated with five "
        "episodes without noise."
    ),
)

if __name__ == "__main__":
    main(CLAIM)
