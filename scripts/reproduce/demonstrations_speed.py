"""Staying near a clone of demonstrations makes exploration of a finite task faster (2.19)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

EPISODES = (2, 4, 8, 15, 25, 50)


def train(seed: int, task: str, number: int = 0, shown: str = "expert", explores: bool = True) -> Run:
    """A chain of ten states; score the mean value of the policy that was learned after 2, 4, 8, 15, 25 and 50 episodes."""
    import numpy as np
    import torch

    from polyathlon.agents.parts.soft_planning import plan
    from polyathlon.agents.planning.demonstrations import DemonstrationPlanner, demonstrate
    from polyathlon.envs.probes.finite import chain

    finite = chain()
    tables = torch.as_tensor(finite.transitions), torch.as_tensor(finite.rewards)
    uniform = np.full((finite.horizon, *finite.rewards.shape), 0.5)
    best = plan(*tables, torch.as_tensor(uniform).log(), 1e-3)[1].numpy()
    teacher = 0.9 * best + 0.1 * uniform if shown == "expert" else uniform
    demonstrations = demonstrate(finite, teacher, number, seed)
    planner = DemonstrationPlanner(finite, demonstrations, lam=0.05 if number else 1e-3, seed=seed)
    curve = []
    for k in EPISODES:
        if explores:
            planner.learn(k - planner.episodes)
        policy = planner.policy if explores else planner.clone
        curve.append((float(k), finite.value(policy)))
    return Run(sum(value for _, value in curve) / len(curve), curve)


CLAIM = Claim(
    name="demonstrations_speed",
    statement="Twenty demonstrations make optimistic exploration of a chain faster, and the result is worth more than their clone.",
    source="Tiapkin et al. 2024, Demonstration-Regularized RL, arXiv 2310.17303",
    metric="mean value after 2 to 50 episodes (the optimum is .574)",
    arms={
        "20 demonstrations": partial(train, number=20),
        "none": train,
        "clone": partial(train, number=20, explores=False),
        "20 of random play": partial(train, number=20, shown="random"),
    },
    comparisons=[
        Comparison("20 demonstrations", "none", "higher", margin=0.03),
        Comparison("20 demonstrations", "clone", "higher", margin=0.1),
    ],
    controls=[Control("20 of random play", ("20 demonstrations",))],
    tasks=("a chain",),
    seeds=16,
    curve="value",
    step_label="episodes",
    setting="10 states, 12 steps, slip .2; the expert is 90 % optimal; c .1, lam .05 (.001 without demonstrations), kappa 1.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
