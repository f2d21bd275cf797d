"""EMPO learns what the majority says: right where the majority is right, and wrong where it is wrong (B8)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

PROMPTS, ARMS, STEPS = 64, 10, 200


def train(seed: int, task: str, recipe: str, steps: int = STEPS, by_chance: bool = False) -> Run:
    """On 3/4 of the prompts the right arm is the mode (.4), on 1/4 a wrong one (.5 against .2); score where the majority is right."""
    import numpy as np
    import torch
    from _tables import chosen, iterations, learner

    from polyathlon.envs.probes import TableTask

    draws = np.random.default_rng(seed)
    score = (lambda prompt, tokens: float(draws.random() < 0.5)) if by_chance else None
    problem = TableTask(PROMPTS, 1, ARMS, score, seed=seed)
    targets = torch.as_tensor(problem.targets)[:, 0]
    rows, good = torch.arange(PROMPTS), 3 * PROMPTS // 4
    p = torch.where((rows < good)[:, None], 0.6 / (ARMS - 1), 0.3 / (ARMS - 2)).expand(PROMPTS, ARMS).clone()
    p[rows, targets] = torch.where(rows < good, 0.4, 0.2)
    p[rows[good:], (targets[good:] + 1) % ARMS] = 0.5

    def start(model, _) -> None:
        model.z[:, 0, 0] = p.log()

    agent = learner(
        seed, recipe, f"table:{PROMPTS},1,{ARMS}", problem, 0.5, PROMPTS, start=_no_grad(start), group_size=8
    )
    iterations(agent, steps)
    right = chosen(agent)[rows, targets]
    return Run(
        float(right[:good].mean()), [], {"majority_wrong": float(right[good:].mean()), "all": float(right.mean())}
    )


def wrong_majority(seed: int, task: str, **words) -> Run:
    """Score where the majority is wrong."""
    run = train(seed, task, **words)
    return Run(run.extra["majority_wrong"], [], run.extra)


def _no_grad(function):
    import torch

    return torch.no_grad()(function)


CLAIM = Claim(
    name="empo_majority",
    statement="Without labels, the frequency of an answer as its reward raises success where the majority is right, and destroys it where the majority is "
    "wrong: a warning.",
    source="Zhang et al. 2025, EMPO, arXiv 2504.05812",
    metric="probability of the right answer, where the majority is right or, in arms that say so, wrong",
    arms={
        "EMPO": partial(train, recipe="empo"),
        "start": partial(train, recipe="empo", steps=0),
        "EMPO, majority wrong": partial(wrong_majority, recipe="empo"),
        "start, majority wrong": partial(wrong_majority, recipe="empo", steps=0),
        "rewards by chance": partial(train, recipe="grpo", by_chance=True),
        "rewards by chance, majority wrong": partial(wrong_majority, recipe="grpo", by_chance=True),
    },
    comparisons=[
        Comparison("EMPO", "start", "higher", margin=0.3),
        Comparison("EMPO, majority wrong", "start, majority wrong", "lower", margin=0.1),
    ],
    controls=[
        Control("rewards by chance", ("EMPO",)),
        Control("rewards by chance, majority wrong", ("EMPO, majority wrong",)),
    ],
    tasks=("majorities",),
    seeds=8,
    setting=f"{PROMPTS} prompts, {ARMS} arms, 8 answers, plain gradient descent (0.5) on a table, {STEPS} batches.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
