"""SAC and TD3 reach the returns of Stable-Baselines3's on HalfCheetah and Hopper at equal steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from _claim import Claim, Comparison, Run, main

STEPS, EVERY, EPISODES, NOISE = 20_000, 2_500, 3, 0.1
SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "batch_size": 128,
    "learning_starts": 1_000,
    "buffer_size": STEPS,
    "device": "cpu",
}
LAYERS = [128, 128]


class Task(NamedTuple):
    """The returns that count as 0 (random actions) and as 1."""

    random: float
    good: float


TASKS = {"HalfCheetah-v5": Task(-280.0, 1_000.0), "Hopper-v5": Task(20.0, 500.0)}


def _train(agent: Any, seed: int, task: str) -> Run:
    """Learn, and evaluate the deterministic policy at equal distances."""
    import gymnasium as gym
    import torch
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor

    torch.set_num_threads(1)
    test, numbers, curve = Monitor(gym.make(task)), TASKS[task], []
    for k in range(STEPS // EVERY):
        agent.learn(EVERY, reset_num_timesteps=k == 0)
        test.reset(seed=10_000 * (seed + 1) + k)
        mean, _ = evaluate_policy(agent, test, EPISODES, warn=False)
        curve.append((float(agent.num_timesteps), (float(mean) - numbers.random) / (numbers.good - numbers.random)))
    scores = [score for _, score in curve]
    return Run(float(np.mean(scores[len(scores) // 2 :])), curve, {"last": scores[-1], "best": max(scores)})


def _make(task: str) -> Any:
    import gymnasium as gym

    return gym.make(task)


def sac(seed: int, task: str) -> Run:
    """Train this package's SAC."""
    from polyathlon.agents import SAC

    return _train(SAC("MlpPolicy", _make(task), seed=seed, policy_kwargs={"net_arch": LAYERS}, **SETTINGS), seed, task)


def td3(seed: int, task: str) -> Run:
    """Train this package's TD3."""
    from polyathlon.agents import TD3

    agent = TD3(
        "MlpPolicy",
        _make(task),
        exploration_noise=NOISE,
        seed=seed,
        policy_kwargs={"net_arch": LAYERS},
        **SETTINGS,
    )
    return _train(agent, seed, task)


def sb3_sac(seed: int, task: str) -> Run:
    """Train SB3's SAC."""
    from stable_baselines3 import SAC

    return _train(SAC("MlpPolicy", _make(task), seed=seed, policy_kwargs={"net_arch": LAYERS}, **SETTINGS), seed, task)


def sb3_td3(seed: int, task: str) -> Run:
    """Train SB3's TD3."""
    from stable_baselines3 import TD3
    from stable_baselines3.common.noise import NormalActionNoise

    env = _make(task)
    size = env.action_space.shape[0]
    noise = NormalActionNoise(np.zeros(size), np.full(size, NOISE))
    return _train(
        TD3("MlpPolicy", env, action_noise=noise, seed=seed, policy_kwargs={"net_arch": LAYERS}, **SETTINGS), seed, task
    )


CLAIM = Claim(
    name="mujoco_learns_as_sb3",
    statement="SAC and TD3 reach the returns of Stable-Baselines3's on HalfCheetah and Hopper at equal steps.",
    source="Stable-Baselines3 2.9.2, stable_baselines3/sac/sac.py and stable_baselines3/td3/td3.py",
    metric="mean evaluated return over the second half of training, from 0 (random actions) to 1 (a fixed good return)",
    arms={"SAC": sac, "SB3's SAC": sb3_sac, "TD3": td3, "SB3's TD3": sb3_td3},
    comparisons=[Comparison("SAC", "SB3's SAC", "not lower"), Comparison("TD3", "SB3's TD3", "not lower")],
    tasks=tuple(TASKS),
    seeds=4,
    setting=(
        f"{STEPS:,} steps, 1,000 of them random first, two layers of 128, minibatches of 128, learning rate 1e-3, all else SB3's defaults (TD3: "
        f"exploration noise {NOISE}); "
        + "; ".join(f"{name}: 0 is {t.random:g} and 1 is {t.good:g}" for name, t in TASKS.items())
        + f". An evaluation of {EPISODES} deterministic episodes every {EVERY:,} steps. The usual budget on these robots is a million "
        "steps with layers of 256: about three hours of one core a run."
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(CLAIM))
