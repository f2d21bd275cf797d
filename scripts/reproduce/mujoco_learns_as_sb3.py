"""SAC and TD3 learn as Stable-Baselines3's do on HalfCheetah and Hopper at equal steps."""

from __future__ import annotations

from copy import deepcopy  # SB3 writes into policy_kwargs
from typing import Any

import numpy as np
from _claim import Claim, Comparison, Control, Run, main
from _learning import Scale, learn, scored, without_learning

STEPS, EVERY, EPISODES, NOISE = 20_000, 2_500, 3, 0.1
EVALUATIONS = STEPS // EVERY
MARGIN, FAR = 0.2, 0.2
SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "batch_size": 128,
    "learning_starts": 1_000,
    "buffer_size": STEPS,
    "policy_kwargs": {"net_arch": [128, 128]},
    "device": "cpu",
}
COMPILED: dict[str, Any] = {**SETTINGS, "compile": True}
TASKS = {"HalfCheetah-v5": Scale(-280.0, 1_000.0), "Hopper-v5": Scale(20.0, 500.0)}


def _run(agent: Any, seed: int, task: str, steps: int = STEPS) -> Run:
    return scored(learn(agent, task, seed, steps, EVALUATIONS, EPISODES), TASKS[task], EVALUATIONS // 2)


def _sac(seed: int, task: str, **words: Any) -> Any:
    from polyathlon.agents import SAC

    return SAC("MlpPolicy", task, seed=seed, **deepcopy(COMPILED), **words)


def _td3(seed: int, task: str) -> Any:
    from polyathlon.agents import TD3

    return TD3("MlpPolicy", task, exploration_noise=NOISE, seed=seed, **deepcopy(COMPILED))


def sac(seed: int, task: str) -> Run:
    """Train this package's SAC."""
    return _run(_sac(seed, task), seed, task)


def sac_in_bfloat16(seed: int, task: str) -> Run:
    """Train this package's SAC with losses in bfloat16."""
    return _run(_sac(seed, task, matmul_precision="medium"), seed, task)


def td3(seed: int, task: str) -> Run:
    """Train this package's TD3."""
    return _run(_td3(seed, task), seed, task)


def idle_sac(seed: int, task: str) -> Run:
    """Let this package's SAC act for as long, with gradient steps that do nothing."""
    return _run(without_learning(_sac(seed, task)), seed, task)


def idle_td3(seed: int, task: str) -> Run:
    """The same for TD3."""
    return _run(without_learning(_td3(seed, task)), seed, task)


def sb3_sac(seed: int, task: str, steps: int = STEPS) -> Run:
    """Train SB3's SAC."""
    from stable_baselines3 import SAC

    return _run(SAC("MlpPolicy", task, seed=seed, **deepcopy(SETTINGS)), seed, task, steps)


def sb3_td3(seed: int, task: str) -> Run:
    """Train SB3's TD3."""
    import gymnasium as gym
    from stable_baselines3 import TD3
    from stable_baselines3.common.noise import NormalActionNoise

    env = gym.make(task)
    size = env.action_space.shape[0]
    noise = NormalActionNoise(np.zeros(size), np.full(size, NOISE))
    return _run(TD3("MlpPolicy", env, action_noise=noise, seed=seed, **deepcopy(SETTINGS)), seed, task)


def start(seed: int, task: str) -> Run:
    """Evaluate SB3's SAC before it has learnt anything."""
    return sb3_sac(seed, task, steps=0)


CLAIM = Claim(
    name="mujoco_learns_as_sb3",
    statement="SAC and TD3, their gradient steps compiled, learn HalfCheetah and Hopper as Stable-Baselines3's do at equal steps, SAC also with "
    f"its losses in bfloat16: every agent gets further than {FAR} above an untrained policy, and ours differ from SB3's by at most {MARGIN}.",
    source="Stable-Baselines3 2.9.2, stable_baselines3/sac/sac.py and stable_baselines3/td3/td3.py",
    metric="mean evaluated return over the second half of training, from 0 (random actions) to 1 (a fixed good return)",
    arms={
        "SAC": sac,
        "SAC, bfloat16": sac_in_bfloat16,
        "SB3's SAC": sb3_sac,
        "TD3": td3,
        "SB3's TD3": sb3_td3,
        "untrained": start,
        "SAC, train does nothing": idle_sac,
        "TD3, train does nothing": idle_td3,
    },
    comparisons=[
        *(
            Comparison(name, "untrained", "higher", margin=FAR)
            for name in ("SAC", "SAC, bfloat16", "SB3's SAC", "TD3", "SB3's TD3")
        ),
        Comparison("SAC", "SB3's SAC", "equal", margin=MARGIN),
        Comparison("SAC, bfloat16", "SB3's SAC", "equal", margin=MARGIN),
        Comparison("TD3", "SB3's TD3", "equal", margin=MARGIN),
    ],
    controls=[
        Control("SAC, train does nothing", ("SAC", "SAC, bfloat16", "SB3's SAC")),
        Control("TD3, train does nothing", ("TD3", "SB3's TD3")),
    ],
    tasks=tuple(TASKS),
    seeds=12,
    curve="evaluated return, from 0 (random actions) to 1",
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
