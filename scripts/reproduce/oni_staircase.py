"""ONI's three forms against RND and the environment's reward alone on NetHack's staircase, with labels by a script."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main, other_draws

from polyathlon.agents import PPO
from polyathlon.agents.parts.annotators import ScriptedAnnotator, phrases
from polyathlon.agents.parts.intrinsic import RND, NoBonus
from polyathlon.agents.parts.oni import OniClassifier, OniHash, OniRanking

# a process of 16 games and PPO's update take 60 to 100 seconds of one core for 100,000 steps of these
STEPS, ROWS, CHUNKS = 200_000, 16, 10
HELPFUL = ("staircase down", "door opens", "you find a hidden", "you break through")


def learn(seed: int, task: str, make: Any) -> Run:
    """Train PPO; score the share of the last 100 episodes that stand on the stairs down within 1,000 steps."""
    agent = PPO(
        "MultiInputPolicy",
        "polyathlon/NetHack-v0",
        n_envs=ROWS,
        n_steps=64,
        batch_size=256,
        n_epochs=4,
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
        max_episode_steps=1000,
    )


def _successes(agent: Any) -> float:
    """Return the share of the last 100 episodes whose return is above 0: a success pays 1, standing still costs 0.01 a step."""
    returns = [episode["r"] for episode in agent.ep_info_buffer]
    lengths = [episode["l"] for episode in agent.ep_info_buffer]
    return float(np.mean([r > 0 or n < 1000 for r, n in zip(returns, lengths)])) if returns else 0.0


def oni(form: Any, seed: int) -> Any:
    """Make a form of ONI with scripted labels, two rollouts late."""
    return form(ScriptedAnnotator(phrases(*HELPFUL), delay=2), coefficient=0.1, extrinsic=1.0, seed=seed)


ARMS = {
    "hash": partial(learn, make=partial(oni, OniHash)),
    "classifier": partial(learn, make=partial(oni, OniClassifier)),
    "ranking": partial(learn, make=partial(oni, OniRanking)),
    "RND": partial(learn, make=lambda seed: RND(0.01, seed=seed)),
    "extrinsic only": partial(learn, make=lambda seed: NoBonus()),
    "extrinsic only, other draws": other_draws(partial(learn, make=lambda seed: NoBonus())),
}
CLAIM = Claim(
    name="oni_staircase",
    statement="On NetHack's staircase task intrinsic rewards from late labels (ONI) find the stairs down more often than the "
    "environment's reward alone and than RND.",
    source="Zheng et al. 2024, Online Intrinsic Rewards for Decision Making Agents from Large Language Model Feedback",
    metric="share of the last 100 episodes that end before their limit of 1,000 steps",
    arms=ARMS,
    comparisons=[
        *(Comparison(form, "extrinsic only", "higher") for form in ("hash", "classifier", "ranking")),
        Comparison("hash", "RND", "higher"),
    ],
    controls=[Control("extrinsic only, other draws", ("hash", "classifier", "ranking"))],
    tasks=("staircase",),
    seeds=8,
    step_label="steps",
    setting=f"PPO, {ROWS} games, {STEPS:,} steps (the paper has about 2e9); labels by a script ({', '.join(HELPFUL)}). Deaths "
    "count as ends too: look at the curves beside the number.",
)

if __name__ == "__main__":
    main(CLAIM)
