"""ONI's three forms against RND and the environment's reward alone on NetHack's staircase, with labels by a script."""

from __future__ import annotations

import hashlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

from polyathlon.agents import PPO
from polyathlon.agents.parts.annotators import ScriptedAnnotator, phrases
from polyathlon.agents.parts.intrinsic import RND, NoBonus
from polyathlon.agents.parts.oni import OniClassifier, OniHash, OniRanking

# 16 games and PPO's update take about 10 seconds of one core for 10,000 steps, a delivery of labels to a network 5 to 10
STEPS, ROWS, CHUNKS, LIMIT = 24_576, 16, 4, 200
HELPFUL = ("staircase down", "door opens", "you find a hidden", "you break through")


def learn(seed: int, task: str, make: Any) -> Run:
    """Train PPO; score the share of the last 100 episodes with a positive return."""
    agent = PPO(
        "MultiInputPolicy",
        "polyathlon/NetHack-v0",
        n_envs=ROWS,
        n_steps=64,
        batch_size=512,
        n_epochs=2,
        gamma=0.995,
        ent_coef=0.01,
        learning_rate=5e-4,
        bonus=make(seed),
        seed=seed,
        device="cpu",
    )
    agent.set_env(_rows(task))
    curve = []
    for chunk in range(CHUNKS):
        agent.learn(STEPS // CHUNKS, reset_num_timesteps=chunk == 0)
        curve.append((float(agent.num_timesteps), _successes(agent)))
    return Run(curve[-1][1], curve, agent.bonus.metrics())


def _rows(task: str) -> Any:
    import gymnasium as gym

    return gym.make_vec(
        "polyathlon/NetHack-v0",
        num_envs=ROWS,
        vectorization_mode="vector_entry_point",
        output="torch",
        autoreset_mode="SAME_STEP",
        task=task,
        max_episode_steps=LIMIT,
    )


def _successes(agent: Any) -> float:
    """Return the share of the last 100 episodes whose return is above 0: a success pays 1, a move that changes nothing costs 0.01."""
    return float(np.mean([episode["r"] > 0 for episode in agent.ep_info_buffer])) if agent.ep_info_buffer else 0.0


def oni(form: Any, seed: int, by_coin: bool = False) -> Any:
    """Make a form of ONI with labels two rollouts late, a hundred at a time: scripted, or drawn by a coin of the seed for each request."""
    rule = partial(coin, seed) if by_coin else phrases(*HELPFUL)
    return form(ScriptedAnnotator(rule, delay=2, batch=100), coefficient=0.1, extrinsic=1.0, seed=seed)


def coin(seed: int, request: Any) -> float:
    """Return 0 or 1 for a request, always the same for the same one."""
    return float(hashlib.sha256(repr((seed, request)).encode()).digest()[0] % 2)


ARMS = {
    "hash": partial(learn, make=partial(oni, OniHash)),
    "classifier": partial(learn, make=partial(oni, OniClassifier)),
    "ranking": partial(learn, make=partial(oni, OniRanking)),
    "hash, labels by coin": partial(learn, make=partial(oni, OniHash, by_coin=True)),
    "RND": partial(learn, make=lambda seed: RND(0.01, seed=seed)),
    "extrinsic only": partial(learn, make=lambda seed: NoBonus()),
}
CLAIM = Claim(
    name="oni_staircase",
    statement="On NetHack's staircase task intrinsic rewards from late labels (ONI) find the stairs down more often than the "
    "environment's reward alone and than RND.",
    source="Zheng et al. 2024, Online Intrinsic Rewards for Decision Making Agents from Large Language Model Feedback",
    metric=f"share of the last 100 episodes of at most {LIMIT} steps with a positive return (on the stairs, fewer than 100 idle moves)",
    arms=ARMS,
    comparisons=[
        *(Comparison(form, "extrinsic only", "higher") for form in ("hash", "classifier", "ranking")),
        Comparison("hash", "RND", "higher"),
    ],
    controls=[Control("hash, labels by coin", ("hash", "classifier", "ranking"))],
    tasks=("staircase",),
    seeds=8,
    step_label="steps",
    setting=f"PPO, {ROWS} games, {STEPS:,} steps (the paper has about 2e9); labels by a script ({', '.join(HELPFUL)}), two "
    "rollouts late and a hundred at a time; the control's labels are drawn by a coin.",
)

if __name__ == "__main__":
    main(CLAIM)
