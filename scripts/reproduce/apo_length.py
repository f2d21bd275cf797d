"""A dearer price of wrong answers that are longer than right ones shortens wrong answers (B6, STCR)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

PROMPTS, PLACES, STEPS = 64, 24, 30
RIGHT, WRONG, ACCEPTED = 1, 2, 0.6


def train(seed: int, task: str, base: float, steps: int = STEPS) -> Run:
    """Think, then say right or wrong; right is accepted with .6. Score the length of answers that are not accepted."""
    import numpy as np
    import torch
    from _tables import iterations, learner

    from polyathlon.envs.probes import TableTask

    draws = np.random.default_rng(seed)

    def score(prompt: int, tokens: list[int]) -> float:
        return float(tokens[-1] == RIGHT and draws.random() < ACCEPTED)

    def start(model, _) -> None:
        model.z[:] = torch.tensor([2.2, -1.0, -0.3])

    problem = TableTask(PROMPTS, PLACES, 3, score=score)
    agent = learner(
        seed, "apo", f"table:{PROMPTS},{PLACES},3,ends=2,prev=0", problem, 5.0, PROMPTS, group_size=8,
        start=torch.no_grad()(start), recipe_kwargs={"base": base, "kl_coef": 0.0},
    )  # fmt: skip
    iterations(agent, steps)
    episodes = [e for _ in range(8) for e in agent.collect_episodes()]
    wrong = [e.length for e in episodes if not e.is_correct]
    return Run(sum(wrong) / len(wrong), [], {"accuracy": 1 - len(wrong) / len(episodes)})


CLAIM = Claim(
    name="apo_length",
    statement="Wrong answers become shorter, the dearer their length is, where the published base of 1.00001 changes their length by less than half a token.",
    source="Hong et al. 2025, APO, arXiv 2506.21655",
    metric="mean tokens of a wrong answer",
    arms={
        "base 1.2": partial(train, base=1.2),
        "base 1.05": partial(train, base=1.05),
        "base 1.00001": partial(train, base=1.00001),
        "no price": partial(train, base=1.0 + 1e-12),
        "nothing learnt": partial(train, base=1.2, steps=0),
    },
    comparisons=[
        Comparison("base 1.2", "no price", "lower", margin=1.0),
        Comparison("base 1.05", "no price", "lower", margin=0.3),
        Comparison("base 1.00001", "no price", "equal", margin=0.5),
    ],
    controls=[Control("nothing learnt", ("base 1.2", "base 1.05", "base 1.00001"))],
    tasks=("thoughts",),
    seeds=8,
    setting=f"{PROMPTS} prompts, up to {PLACES} tokens of three kinds, right ones accepted with {ACCEPTED}, 8 answers, plain gradient descent (5.0) on a table, "
    f"{STEPS} batches, no divergence.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
