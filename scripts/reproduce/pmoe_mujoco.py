"""PMOE against SAC, the Gumbel-softmax and score-ratio routing on two MuJoCo robots."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

TASKS, STEPS, EVERY, EPISODES = ("HalfCheetah-v5", "Hopper-v5"), 15_000, 2_500, 3
SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "batch_size": 128,
    "learning_starts": 1_000,
    "buffer_size": STEPS,
    "device": "cpu",
}


def train(seed: int, task: str, agent: str, learns: bool = True, **options: Any) -> Run:
    """Learn, and evaluate the deterministic policy every `EVERY` steps; the score is the mean of all evaluations."""
    import gymnasium as gym
    import torch
    from _learning import without_learning
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor

    from polyathlon import agents

    torch.set_num_threads(1)
    test = Monitor(gym.make(task))
    learner = getattr(agents, agent)(
        "MlpPolicy", gym.make(task), policy_kwargs={"net_arch": [128, 128]}, seed=seed, **SETTINGS, **options
    )
    learner = learner if learns else without_learning(learner)
    curve = []
    for step in range(EVERY, STEPS + 1, EVERY):
        learner.learn(EVERY, reset_num_timesteps=False)
        test.reset(seed=10_000 + seed)
        mean, _ = evaluate_policy(learner, test, EPISODES, warn=False)
        curve.append((float(step), float(mean)))
    return Run(float(np.mean([value for _, value in curve])), curve, {"last": curve[-1][1]})


METHOD, BASELINE = "PMOE (frequency)", "SAC"
CLAIM = Claim(
    name="pmoe_mujoco",
    statement="On MuJoCo robots a mixture of experts (PMOE) learns faster than SAC with one Gaussian, and than mixtures that "
    "route by score ratio or Gumbel-softmax.",
    source="Ren et al. 2021, Probabilistic Mixture-of-Experts for Efficient Deep Reinforcement Learning, arXiv 2104.09122 "
    "(six robots, millions of steps).",
    metric="mean return of the evaluations while learning (area under the curve)",
    arms={
        METHOD: partial(train, agent="PMOE"),
        BASELINE: partial(train, agent="SAC"),
        "score ratio": partial(train, agent="PMOE", estimator="score_ratio"),
        "Gumbel-softmax": partial(train, agent="PMOE", estimator="gumbel_softmax"),
        "train does nothing": partial(train, agent="PMOE", learns=False),
    },
    comparisons=[Comparison(METHOD, name, "higher") for name in (BASELINE, "score ratio", "Gumbel-softmax")],
    controls=[Control("train does nothing", (METHOD,))],
    tasks=TASKS,
    seeds=8,
    curve="mean return of an evaluation",
    setting=f"{STEPS:,} steps, 1,000 of them random first, an evaluation of {EPISODES} episodes every {EVERY:,}, K = 4, two layers of "
    "128, minibatches of 128, learning rate 1e-3, all else SAC's defaults. This budget shows a direction at most: the paper's curves take millions of "
    "steps.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
