"""DARS finds rare right answers sooner than plain larger groups of the same cost (B13)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

PROMPTS, ARMS, STEPS = 128, 64, 30


def train(seed: int, task: str, recipe: str, size: int, steps: int = STEPS, **options) -> Run:
    """Learn from prompts of success .005 to .9; score the mean probability that 32 answers hold a right one."""
    import torch
    from _tables import chosen, iterations, learner

    from polyathlon.envs.probes import TableTask

    problem = TableTask(PROMPTS, 1, ARMS, seed=seed)
    targets = torch.as_tensor(problem.targets)
    p = torch.logspace(-2.30103, -0.045757, PROMPTS)
    agent = learner(
        seed, recipe, f"table:{PROMPTS},1,{ARMS}", problem, 0.1 / PROMPTS, PROMPTS,
        start=lambda model, _: model.prefer(targets, p), group_size=size, recipe_kwargs=options,
    )  # fmt: skip
    iterations(agent, steps)
    right = chosen(agent).gather(1, targets)[:, 0].double()
    answers = agent._episode_num / max(steps * PROMPTS, 1)
    return Run(float((1 - (1 - right) ** 32).mean()), [], {"pass1": float(right.mean()), "answers": answers})


ONCE = {"aggregation": "token-sum-norm", "minibatches": 1}
CLAIM = Claim(
    name="dars_breadth",
    statement="At an equal number of answers, giving more of them to hard prompts (DARS) leaves more prompts solved among 32 answers than larger groups "
    "for all.",
    source="Yang et al. 2025, DARS, arXiv 2508.13755",
    metric="probability that 32 answers to a prompt hold a right one, mean over prompts (pass@32)",
    arms={
        "DARS, ET": partial(train, recipe="dars", size=8, minibatches=1),
        "DARS, HW": partial(train, recipe="dars", size=8, minibatches=1, schedule="HW", n_max=64),
        "16 answers": partial(train, recipe="dr_grpo", size=16, **ONCE),
        "20 answers": partial(train, recipe="dr_grpo", size=20, **ONCE),
        "nothing learnt": partial(train, recipe="dars", size=8, steps=0, minibatches=1),
    },
    comparisons=[Comparison("DARS, ET", "16 answers", "higher"), Comparison("DARS, HW", "20 answers", "higher")],
    controls=[Control("nothing learnt", ("DARS, ET", "DARS, HW"))],
    tasks=("many difficulties",),
    seeds=8,
    setting=f"{PROMPTS} prompts, {ARMS} arms, loss summed over answers, plain gradient descent (0.1) on a table, {STEPS} batches; ET has about 16 answers "
    "a prompt, HW about 20.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
