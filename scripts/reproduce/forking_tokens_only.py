"""The tokens of the highest entropy carry the learning: alone they suffice, without them nothing is learnt (B3)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

PROMPTS, PLACES, TOKENS, STEPS = 16, 20, 6, 150


def lowest(entropy, mask, *, rho):
    """Mark the other tokens."""
    from polyathlon.agents.parts.token_weights import entropy_top_mask

    return mask - entropy_top_mask(entropy, mask, rho=rho)


def train(seed: int, task: str, weights: str, rate: float, steps: int = STEPS) -> Run:
    """Four forks (.31) among 16 sure tokens (.99) a prompt; score the probability that all 20 are right."""
    import dataclasses

    import torch
    from _tables import followed, iterations, learner

    from polyathlon.agents.language.recipes import find_recipe
    from polyathlon.agents.parts.wiring import part
    from polyathlon.envs.probes import TableTask

    row = find_recipe("forking_tokens", dynamic_sampling=0, overlong_buffer=0)
    other = part("forking_tokens_only:lowest", rho=0.2)
    row = {
        "forks": row,
        "all": dataclasses.replace(row, weights=(), denominator="all"),
        "others": dataclasses.replace(row, weights=(other,)),
    }[weights]
    problem = TableTask(PROMPTS, PLACES, TOKENS, seed=seed)
    p = torch.full((PROMPTS, PLACES), 0.99)
    p[:, ::5] = 0.31
    agent = learner(
        seed, row, f"table:{PROMPTS},{PLACES},{TOKENS},prev=0", problem, rate, PROMPTS,
        start=lambda model, _: model.prefer(torch.as_tensor(problem.targets), p), group_size=16,
    )  # fmt: skip
    iterations(agent, steps)
    return Run(float(followed(agent, problem.targets).mean()))


CLAIM = Claim(
    name="forking_tokens_only",
    statement="With the fifth of the tokens of the highest entropy alone more is learnt than with all at the same step size, and without them nothing. (The gain is "
    "that of the denominator: with steps five times as large all tokens do as well.)",
    source="Wang et al. 2025, arXiv 2506.01939",
    metric="probability of the right answer",
    arms={
        "forks": partial(train, weights="forks", rate=1.0),
        "all": partial(train, weights="all", rate=1.0),
        "all, five times the step": partial(train, weights="all", rate=5.0),
        "others": partial(train, weights="others", rate=5.0),
        "nothing learnt": partial(train, weights="forks", rate=1.0, steps=0),
    },
    comparisons=[
        Comparison("forks", "all", "higher", margin=0.2),
        Comparison("forks", "others", "higher", margin=0.2),
        Comparison("forks", "all, five times the step", "equal", margin=0.15),
    ],
    controls=[Control("nothing learnt", ("forks",))],
    tasks=("four forks",),
    seeds=8,
    setting=f"{PROMPTS} prompts, {PLACES} places, {TOKENS} tokens, 16 answers, plain gradient descent on a table, {STEPS} batches.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
