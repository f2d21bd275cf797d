"""A policy trained on the synthetic page, tried on real ones it never saw: against an untrained policy and random play."""

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

STEPS, ROWS, EPISODES = 30_720, 128, 40
PAGES = ("click-test-2", "click-button", "click-link", "click-checkboxes", "enter-text")
GOALS = ("click-button", "click-link", "check", "check-several", "enter-text")
SETTINGS: dict[str, Any] = {
    "n_steps": 8,
    "batch_size": 256,
    "n_epochs": 4,
    "learning_rate": 2e-3,
    "ent_coef": 0.01,
    "gamma": 0.95,
    "policy_kwargs": {"width": 32, "num_layers": 1},
}


def real_success(agent: Any, page: str, seed: int, episodes: int = EPISODES) -> float:
    """Share of episodes on a real page that end with the full reward; without an agent, of random allowed actions."""
    rows = 8
    vec = gym.make_vec(
        "polyathlon/WebElements-v0",
        num_envs=rows,
        vectorization_mode="vector_entry_point",
        task=page,
        autoreset_mode="SAME_STEP",
    )
    obs, info = vec.reset(seed=seed)
    rng, ends = np.random.default_rng(seed), []
    while len(ends) < episodes:
        mask = info["action_mask"]
        if agent is None:
            action = np.array([rng.choice(np.flatnonzero(one)) for one in mask])
        else:
            action, _ = agent.predict(obs, action_masks=mask, deterministic=False)
        obs, reward, terminated, truncated, info = vec.step(action)
        ends += [float(reward[i] > 0.99) for i in np.flatnonzero(terminated | truncated)]
    vec.close()
    return float(np.mean(ends[:episodes]))


def learn(seed: int, task: str, arm: str) -> Run:
    """Train on Widgets-v0, if at all; score the success on one real page."""
    if arm == "random play":
        return Run(real_success(None, task, seed))
    env = gym.make("polyathlon/Widgets-v0", goals=GOALS)
    agent = PPO("AttentionPolicy", env, n_envs=ROWS, seed=seed, device="cpu", **SETTINGS)
    curve: list[tuple[float, float]] = []
    if arm == "trained on Widgets":
        for chunk in range(4):
            agent.learn(STEPS // 4, reset_num_timesteps=chunk == 0)
            curve.append((float(agent.num_timesteps), float(np.mean([one["r"] for one in agent.ep_info_buffer]))))
    return Run(real_success(agent, task, seed), curve)


CLAIM = Claim(
    name="gui_transfer",
    statement="A policy trained on the synthetic page alone (Widgets-v0) solves five pages of MiniWoB++ more often than an "
    "untrained policy and than random allowed actions, without any step on a real page.",
    source="This project's own: both environments describe what can be done by the same numbers (envs/gui/features.py).",
    metric="share of 40 episodes on the real page with the full reward",
    arms={
        "trained on Widgets": partial(learn, arm="trained on Widgets"),
        "untrained": partial(learn, arm="untrained"),
        "random play": partial(learn, arm="random play"),
        "untrained, other draws": other_draws(partial(learn, arm="untrained")),
    },
    comparisons=[
        Comparison("trained on Widgets", "untrained", "higher"),
        Comparison("trained on Widgets", "random play", "higher"),
    ],
    controls=[Control("untrained, other draws", ("trained on Widgets",))],
    tasks=PAGES,
    seeds=8,
    curve="mean return on Widgets-v0",
    setting=f"PPO with AttentionPolicy, {STEPS} steps in {ROWS} rows on the goals {GOALS}, {SETTINGS}; actions are sampled; needs the extra gui.",
)

if __name__ == "__main__":
    main(CLAIM)
