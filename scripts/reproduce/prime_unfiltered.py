"""A warning: where hardly an answer is right and no group is left out, PRIME's process model unlearns what is right (B7, experiment C)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

PLACES, TOKENS, RIGHT, BATCH, STEPS, RATE = 8, 6, 0.5, 32, 60, 0.05


def train(seed: int, task: str, recipe: str, steps: int = STEPS) -> Run:
    """One problem whose answer is right with .5 a token at first (.4 % in all); score the probability of the right answer."""
    import torch
    from _tables import followed, iterations, learner

    from polyathlon.envs.probes import TableTask

    problem = TableTask(1, PLACES, TOKENS, seed=seed)
    name = f"table:1,{PLACES},{TOKENS},prev=0"
    words: dict[str, Any] = {"process_learning_rate": RATE, "dynamic_sampling": 0} if recipe == "prime" else {}
    agent = learner(
        seed, recipe, name, problem, RATE, BATCH, adam=True, group_size=4, recipe_kwargs=words,
        start=lambda model, _: model.prefer(torch.as_tensor(problem.targets), RIGHT),
    )  # fmt: skip
    curve: list[tuple[float, float]] = []

    def watch(step: int) -> None:
        if step % 10 == 0:
            curve.append((float(step), float(followed(agent, problem.targets).mean())))

    iterations(agent, steps, watch)
    return Run(float(followed(agent, problem.targets).mean()), curve)


CLAIM = Claim(
    name="prime_unfiltered",
    statement="Where one answer in 250 is right and no group is left out, policy gradient with the others' mean as the baseline (RLOO) learns what is right, and PRIME "
    "falls short of it by half and more: the filter of accuracies is no option of PRIME's. A warning.",
    source="Cui et al. 2025, PRIME, arXiv 2502.01456",
    metric="probability of the right answer",
    arms={
        "RLOO": partial(train, recipe="rloo"),
        "PRIME, no filter": partial(train, recipe="prime"),
        "nothing learnt": partial(train, recipe="rloo", steps=0),
    },
    comparisons=[Comparison("RLOO", "PRIME, no filter", "higher", margin=0.5)],
    controls=[Control("nothing learnt", ("RLOO",))],
    tasks=("a rare answer",),
    seeds=8,
    curve="probability of the right answer",
    step_label="batches",
    setting=f"{PLACES} tokens of {TOKENS} kinds, each right with {RIGHT} at first, {BATCH} groups of 4 a batch, Adam ({RATE}) for the policy and the process model, "
    f"{STEPS} batches.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
