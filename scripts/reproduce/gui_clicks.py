"""Click tasks on real pages learned by PPO: from the table of elements, and from pixels; random play as the floors."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

import polyathlon  # noqa: F401
from polyathlon.agents import PPO

ROWS, CHUNKS, FLOOR_STEPS = 16, 2, 256
CELLS = {"columns": 5, "lines": 7}  # 32 x 30 pixels, somewhat less than a button
STEPS = {"elements": 1_536, "pixels": 2_048}
COMMON: dict[str, Any] = {"ent_coef": 0.01, "gamma": 0.9, "n_epochs": 4, "n_steps": 16, "batch_size": 64}
RATE = 1e-3


def learn(seed: int, task: str, form: str, rate: float = RATE) -> Run:
    """Train on a page; score the share of full rewards among the last 100 episodes. A rate of 0 is a policy that does not learn."""
    env = _vector(task, form)
    policy = "AttentionPolicy" if form == "elements" else "CnnPolicy"
    agent = PPO(policy, env, seed=seed, device="cpu", learning_rate=rate, **COMMON)
    curve = []
    for chunk in range(CHUNKS if rate else 1):
        agent.learn(STEPS[form] // CHUNKS if rate else FLOOR_STEPS, reset_num_timesteps=chunk == 0)
        ends = [one["r"] > 0.99 for one in agent.ep_info_buffer]
        curve.append((float(agent.num_timesteps), float(np.mean(ends))))
    env.close()
    return Run(curve[-1][1], curve)


def _vector(task: str, form: str) -> Any:
    grid = CELLS if form == "pixels" else {}
    return gym.make_vec(
        f"polyathlon/Web{'Grid' if form == 'pixels' else 'Elements'}-v0",
        num_envs=ROWS,
        vectorization_mode="vector_entry_point",
        task=task,
        max_steps=5,
        output="torch",
        autoreset_mode="SAME_STEP",
        **grid,
    )


def random_play(seed: int, task: str, form: str, episodes: int = 100) -> Run:
    """Draw an allowed element, or a cell or key, evenly at each step."""
    vec, rng, ends = _vector(task, form), np.random.default_rng(seed), []
    _, info = vec.reset(seed=seed)
    while len(ends) < episodes:
        if form == "elements":
            action = np.array([rng.choice(np.flatnonzero(one)) for one in info["action_mask"].numpy()])
        else:
            action = rng.integers(vec.single_action_space.n, size=ROWS)
        _, reward, terminated, truncated, info = vec.step(action)
        ends += [float(reward[i] > 0.99) for i in np.flatnonzero((terminated | truncated).numpy())]
    vec.close()
    return Run(float(np.mean(ends[:episodes])))


CLAIM = Claim(
    name="gui_clicks",
    statement="PPO learns a one-click page of MiniWoB++ with two buttons from the table of elements, above a random choice among "
    "the page's elements, and from the pixels of the page, above random clicks on its cells.",
    source="Shi et al. 2017, World of Bits; Liu et al. 2018, Reinforcement Learning on Web Interfaces.",
    metric="share of the last 100 episodes with the full reward",
    arms={
        "elements": partial(learn, form="elements"),
        "pixels": partial(learn, form="pixels"),
        "random elements": partial(random_play, form="elements"),
        "random cells": partial(random_play, form="pixels"),
        "elements, learning rate 0": partial(learn, form="elements", rate=0.0),
        "pixels, learning rate 0": partial(learn, form="pixels", rate=0.0),
    },
    comparisons=[
        Comparison("elements", "random elements", "higher"),
        Comparison("pixels", "random cells", "higher"),
    ],
    controls=[
        Control("elements, learning rate 0", ("elements",)),
        Control("pixels, learning rate 0", ("pixels",)),
    ],
    tasks=("click-test-2",),
    seeds=8,
    curve="share of full rewards",
    setting=f"PPO, {ROWS} pages in one browser, {STEPS} steps, learning rate {RATE}, {COMMON}; the grid has 5 x 7 cells; "
    f"episodes of at most 5 steps; the controls play {FLOOR_STEPS} steps; needs the extra gui.",
)

if __name__ == "__main__":
    main(CLAIM)
