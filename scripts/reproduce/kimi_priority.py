"""Prompts drawn by 1 - success: hard ones are learnt, easy ones hardly forgotten (B10)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

PROMPTS, ARMS, STEPS = 256, 16, 300


def train(seed: int, task: str, prompts: str, steps: int = STEPS) -> Run:
    """A quarter of 256 prompts is hard (.05, the others .3); 16 a batch. Score the success on hard ones."""
    import torch
    from _tables import chosen, iterations, learner

    from polyathlon.agents.parts.wiring import part
    from polyathlon.envs.probes import TableTask

    problem = TableTask(PROMPTS, 1, ARMS, seed=seed)
    targets = torch.as_tensor(problem.targets)
    hard = torch.arange(PROMPTS) < PROMPTS // 4
    agent = learner(
        seed, "kimi_k15", f"table:{PROMPTS},1,{ARMS}", problem, 0.5, 16, start=lambda model, _: model.prefer(targets, torch.where(hard, 0.05, 0.3)),
        group_size=8, recipe_kwargs={"prompts": part(f"prompt_samplers:{prompts}", pool=PROMPTS), "n_epochs": 1, "tau": 0.1},
    )  # fmt: skip
    iterations(agent, steps)
    right = chosen(agent).gather(1, targets)[:, 0]
    return Run(float(right[hard].mean()), [], {"easy": float(right[~hard].mean())})


CLAIM = Claim(
    name="kimi_priority",
    statement="Drawing problems with probability proportional to 1 - success raises the success on hard ones above that of even draws.",
    source="Kimi Team 2025, section 2.3.4, arXiv 2501.12599",
    metric="success on the hard quarter",
    arms={
        "priority": partial(train, prompts="Prioritized"),
        "even": partial(train, prompts="Evenly"),
        "nothing learnt": partial(train, prompts="Prioritized", steps=0),
    },
    comparisons=[Comparison("priority", "even", "higher", margin=0.1)],
    controls=[Control("nothing learnt", ("priority",))],
    tasks=("two difficulties",),
    seeds=8,
    setting=f"{PROMPTS} prompts, 16 a batch, 8 answers, {ARMS} arms, plain gradient descent (0.5) on a table, {STEPS} batches.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
