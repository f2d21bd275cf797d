"""SAC learns as Stable-Baselines3's SAC does: equal curves on Pendulum and HalfCheetah at equal steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from _claim import Claim, Comparison, Run, main

EVALUATIONS = 4
EPISODES = 5


class Task(NamedTuple):
    """A budget, and the returns that count as 0 (random actions) and 1."""

    steps: int
    random: float
    good: float


TASKS = {"Pendulum-v1": Task(3_000, -1_200.0, -150.0), "HalfCheetah-v5": Task(4_000, -280.0, 1_000.0)}


def _score(agent: Any, task: str, seed: int) -> float:
    """Return the mean return of a few deterministic episodes, from 0 (random) to 1 (good)."""
    import gymnasium as gym

    env, returns = gym.make(task), []
    for episode in range(EPISODES if task == "Pendulum-v1" else 1):
        obs, _ = env.reset(seed=10_000 * (seed + 1) + episode)
        total, over = 0.0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(agent.predict(obs, deterministic=True)[0])
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    numbers = TASKS[task]
    return (float(np.mean(returns)) - numbers.random) / (numbers.good - numbers.random)


def _train(agent_class: Any, seed: int, task: str, **options: Any) -> Run:
    import gymnasium as gym
    import torch

    torch.set_num_threads(1)
    steps = TASKS[task].steps
    settings = {"learning_starts": 500, "buffer_size": steps, "seed": seed, "device": "cpu", **options}
    agent = agent_class("MlpPolicy", gym.make(task), **settings)
    curve = []
    for k in range(EVALUATIONS):
        agent.learn(steps // EVALUATIONS, reset_num_timesteps=k == 0)
        curve.append((float(agent.num_timesteps), _score(agent, task, seed)))
    return Run(float(np.mean([score for _, score in curve[1:]])), curve)


def ours(seed: int, task: str) -> Run:
    """Train this package's SAC."""
    from polyathlon.agents import SAC

    return _train(SAC, seed, task)


def medium(seed: int, task: str) -> Run:
    """Train this package's SAC with bfloat16 products."""
    from polyathlon.agents import SAC

    return _train(SAC, seed, task, matmul_precision="medium")


def sb3(seed: int, task: str) -> Run:
    """Train SB3's."""
    from stable_baselines3 import SAC

    return _train(SAC, seed, task)


CLAIM = Claim(
    name="sac_learns_as_sb3",
    statement="SAC learns as Stable-Baselines3's SAC does at equal steps, with products in float32 and in bfloat16 (medium).",
    source="Stable-Baselines3 2.9.2, stable_baselines3/sac/sac.py",
    metric="mean evaluated return over the last three quarters of training, from 0 (random actions) to 1 (a fixed good return)",
    arms={"polyathlon": ours, "polyathlon, medium": medium, "SB3": sb3},
    comparisons=[
        Comparison("polyathlon", "SB3", "equal", margin=0.2),
        Comparison("polyathlon, medium", "SB3", "equal", margin=0.2),
    ],
    tasks=tuple(TASKS),
    seeds=5,
    step_label="environment steps",
    setting=(
        "default hyper-parameters of SB3, 500 random steps first; "
        + "; ".join(f"{name}: {t.steps:,} steps, 0 is {t.random:g} and 1 is {t.good:g}" for name, t in TASKS.items())
        + ". Every quarter is evaluated with deterministic actions, five episodes of Pendulum, one of HalfCheetah. These budgets "
        "show the beginning: on HalfCheetah neither agent runs yet."
    ),
)

if __name__ == "__main__":
    main(CLAIM)
