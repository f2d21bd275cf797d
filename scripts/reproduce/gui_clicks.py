"""Click tasks on real pages learned by PPO: from the table of elements, and from pixels; random play as the floor."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main, other_draws

import polyathlon  # noqa: F401
from polyathlon.agents import PPO

ROWS, CHUNKS = 16, 6
STEPS = {"elements": 6_000, "pixels": 60_000}
COMMON: dict[str, Any] = {"learning_rate": 1e-3, "ent_coef": 0.01, "gamma": 0.9, "n_epochs": 4, "n_steps": 16}


def learn(seed: int, task: str, arm: str) -> Run:
    """Train on a page; score the share of full rewards among the last 100 episodes."""
    if arm == "random play":
        return Run(_random(seed, task), [])
    env: Any = _vector(task, arm)
    policy = "AttentionPolicy" if arm == "elements" else "CnnPolicy"
    agent = PPO(policy, env, seed=seed, device="cpu", **COMMON)
    curve = []
    for chunk in range(CHUNKS):
        agent.learn(STEPS[arm] // CHUNKS, reset_num_timesteps=chunk == 0)
        ends = [one["r"] > 0.99 for one in agent.ep_info_buffer]
        curve.append((float(agent.num_timesteps), float(np.mean(ends))))
    env.close()
    return Run(curve[-1][1], curve)


def _vector(task: str, arm: str) -> Any:
    grid = {"columns": 8, "lines": 10} if arm == "pixels" else {}
    return gym.make_vec(
        f"polyathlon/Web{'Grid' if arm == 'pixels' else 'Elements'}-v0",
        num_envs=ROWS,
        vectorization_mode="vector_entry_point",
        task=task,
        max_steps=5,
        output="torch",
        autoreset_mode="SAME_STEP",
        **grid,
    )


def _random(seed: int, task: str, episodes: int = 100) -> float:
    vec, rng, ends = _vector(task, "elements"), np.random.default_rng(seed), []
    _, info = vec.reset(seed=seed)
    while len(ends) < episodes:
        action = np.array([rng.choice(np.flatnonzero(one)) for one in info["action_mask"].numpy()])
        _, reward, terminated, truncated, info = vec.step(action)
        ends += [float(reward[i] > 0.99) for i in np.flatnonzero((terminated | truncated).numpy())]
    vec.close()
    return float(np.mean(ends[:episodes]))


CLAIM = Claim(
    name="gui_clicks",
    statement="PPO learns one-click pages of MiniWoB++ from the table of elements and from the pixels of the page, above random "
    "choice among the page's elements.",
    source="Shi et al. 2017, World of Bits; Liu et al. 2018, Reinforcement Learning on Web Interfaces.",
    metric="share of the last 100 episodes with the full reward",
    arms={
        "elements": partial(learn, arm="elements"),
        "pixels": partial(learn, arm="pixels"),
        "random play": partial(learn, arm="random play"),
        "random play, other draws": other_draws(partial(learn, arm="random play")),
    },
    comparisons=[Comparison("elements", "random play", "higher"), Comparison("pixels", "random play", "higher")],
    controls=[Control("random play, other draws", ("elements", "pixels"))],
    tasks=("click-test-2", "click-button"),
    seeds=8,
    curve="share of full rewards",
    setting=f"PPO, {ROWS} pages in one browser, {STEPS} steps, {COMMON}; the grid has 8 x 10 cells; needs the extra gui.",
)

if __name__ == "__main__":
    main(CLAIM)
