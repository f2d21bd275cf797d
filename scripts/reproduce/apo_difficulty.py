"""APO lets hard prompts move further from the reference than easy ones (B6, DADS)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

PROMPTS, ARMS, STEPS = 64, 16, 300


def train(seed: int, task: str, weighted: bool, steps: int = STEPS) -> Run:
    """Half of the prompts begin at .7, half at .05, the divergence from the start costs 1. Score the success on hard ones."""
    import dataclasses

    import torch
    from _tables import chosen, iterations, learner

    from polyathlon.agents.language.recipes import find_recipe
    from polyathlon.agents.parts.wiring import part
    from polyathlon.envs.probes import TableTask

    row = find_recipe("apo")
    even = part("divergences:kl_token", kind="k3", ref_logp="@reference_logp")
    penalty = row.penalties[0] if weighted else dataclasses.replace(row.penalties[0], term=even)
    row = dataclasses.replace(row, penalties=(dataclasses.replace(penalty, coefficient=1.0),))
    problem = TableTask(PROMPTS, 1, ARMS, seed=seed)
    targets = torch.as_tensor(problem.targets)
    hard = torch.arange(PROMPTS) < PROMPTS // 2
    agent = learner(
        seed, row, f"table:{PROMPTS},1,{ARMS}", problem, 0.3, PROMPTS, group_size=8,
        start=lambda model, _: model.prefer(targets, torch.where(hard, 0.05, 0.7)),
    )  # fmt: skip
    iterations(agent, steps)
    right = chosen(agent).gather(1, targets)[:, 0]
    return Run(float(right[hard].mean()), [], {"easy": float(right[~hard].mean())})


def easy(seed: int, task: str, **words) -> Run:
    """Score the success on easy ones."""
    run = train(seed, task, **words)
    return Run(run.extra["easy"], [], run.extra)


CLAIM = Claim(
    name="apo_difficulty",
    statement="A divergence that costs less on hard prompts lets them be learnt further than an even one, and easy ones as far.",
    source="Hong et al. 2025, APO, arXiv 2506.21655",
    metric="success on the hard half; in arms that say so, on the easy half",
    arms={
        "by difficulty": partial(train, weighted=True),
        "even": partial(train, weighted=False),
        "by difficulty, easy": partial(easy, weighted=True),
        "even, easy": partial(easy, weighted=False),
        "nothing learnt": partial(train, weighted=True, steps=0),
        "nothing learnt, easy": partial(easy, weighted=True, steps=0),
    },
    comparisons=[
        Comparison("by difficulty", "even", "higher", margin=0.02),
        Comparison("by difficulty, easy", "even, easy", "equal", margin=0.02),
    ],
    controls=[
        Control("nothing learnt", ("by difficulty",)),
        Control("nothing learnt, easy", ("by difficulty, easy",)),
    ],
    tasks=("two difficulties",),
    seeds=8,
    setting=f"{PROMPTS} prompts, {ARMS} arms, 8 answers, plain gradient descent (0.3) on a table, {STEPS} batches, the divergence times 1.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
