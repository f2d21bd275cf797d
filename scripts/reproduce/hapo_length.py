"""HAPO shortens answers without losing right ones (B16)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

PROMPTS, PLACES, STEPS = 32, 24, 150
THINK, RIGHT, WRONG = 0, 1, 2


def train(seed: int, task: str, recipe: str, steps: int = STEPS) -> Run:
    """Think, then say right or wrong; right counts after 2 thoughts, or 6 on one half. Score the length (and accuracy beside it)."""
    import torch
    from _tables import iterations, learner

    from polyathlon.envs.probes import TableTask

    def score(prompt: int, tokens: list[int]) -> float:
        return float(tokens[-1] == RIGHT and len(tokens) > (2 if prompt % 2 else 6))

    def start(model, _) -> None:
        model.z[:] = torch.tensor([2.2, -0.2, -0.6])

    problem = TableTask(PROMPTS, PLACES, 3, score=score)
    agent = learner(
        seed,
        recipe,
        f"table:{PROMPTS},{PLACES},3,ends=2,prev=0",
        problem,
        2.0,
        PROMPTS,
        start=torch.no_grad()(start),
        group_size=4,
    )
    iterations(agent, steps)
    episodes = [e for _ in range(4) for e in agent.collect_episodes()]
    right = sum(bool(e.is_correct) for e in episodes) / len(episodes)
    return Run(sum(e.length for e in episodes) / len(episodes), [], {"accuracy": right})


def accuracy(seed: int, task: str, **words) -> Run:
    """Score the accuracy."""
    run = train(seed, task, **words)
    return Run(run.extra["accuracy"], [], run.extra)


CLAIM = Claim(
    name="hapo_length",
    statement="Paying right answers that beat the shortest one so far makes answers shorter than GRPO's, at an accuracy that is not lower by more than .03.",
    source="Huang et al. 2025, HAPO, arXiv 2505.11225",
    metric="mean tokens of an answer; in arms that say so, accuracy",
    arms={
        "HAPO": partial(train, recipe="hapo"),
        "GRPO": partial(train, recipe="grpo"),
        "HAPO, accuracy": partial(accuracy, recipe="hapo"),
        "GRPO, accuracy": partial(accuracy, recipe="grpo"),
        "nothing learnt": partial(train, recipe="hapo", steps=0),
        "nothing learnt, accuracy": partial(accuracy, recipe="hapo", steps=0),
    },
    comparisons=[
        Comparison("HAPO", "GRPO", "lower", margin=0.3),
        Comparison("HAPO, accuracy", "GRPO, accuracy", "not lower", margin=0.03),
    ],
    controls=[Control("nothing learnt", ("HAPO",)), Control("nothing learnt, accuracy", ("HAPO, accuracy",))],
    tasks=("thoughts",),
    seeds=8,
    setting=f"{PROMPTS} prompts, up to {PLACES} tokens of three kinds, 4 answers, plain gradient descent (2.0) on a table, {STEPS} batches.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
