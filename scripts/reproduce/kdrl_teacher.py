"""A teacher that is no expert lifts a student that never succeeds, and KDRL goes beyond the teacher (B14)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

PROMPTS, PLACES, TOKENS, STEPS = 32, 6, 6, 300


def train(seed: int, task: str, rl: bool = True, steps: int = STEPS, beta: object = 0.0, applies: str = "all") -> Run:
    """Learn answers of six tokens; score the probability of the right one."""
    import dataclasses

    import torch
    from _tables import followed, iterations, learner

    from polyathlon.agents.language.recipes import find_recipe
    from polyathlon.envs.probes import TableTask

    problem = TableTask(PROMPTS, PLACES, TOKENS, seed=seed)
    targets = torch.as_tensor(problem.targets)
    name = f"table:{PROMPTS},{PLACES},{TOKENS},prev=0"
    row = find_recipe("kdrl", applies=applies)
    row = dataclasses.replace(row, penalties=(dataclasses.replace(row.penalties[0], coefficient=beta),))
    if not rl:
        row = dataclasses.replace(
            row,
            rewards=(),
            advantage=dataclasses.replace(
                row.advantage, options=(("center", "batch"), ("eps", 1e9), ("scale", "batch"))
            ),
        )
    student = 1 / (1 + 5 * 2.718281828**-0.6)
    agent = learner(
        seed, row, name, problem, 2.0, PROMPTS, group_size=8, side_models={"teacher": name},
        start=lambda model, _: model.prefer(targets, student),
    )  # fmt: skip
    p = torch.full((PROMPTS, PLACES), 0.8)
    p[:, -1] = 0.4
    agent.side_models.given["teacher"].prefer(targets, p)
    curve: list[tuple[float, float]] = []

    def watch(step: int) -> None:
        if step % 25 == 0:
            curve.append((float(step), float(followed(agent, problem.targets).mean())))

    iterations(agent, steps, watch)
    return Run(float(followed(agent, problem.targets).mean()), curve, {"teacher": 0.8**5 * 0.4})


def annealed(seed: int, task: str) -> Run:
    """From 1 to .05."""
    from polyathlon.agents.parts.wiring import Schedule

    return train(seed, task, beta=Schedule("linear", 1.0, 0.05))


CLAIM = Claim(
    name="kdrl_teacher",
    statement="Where no answer is right by chance, reinforcement alone stays at nothing and distillation alone at the teacher (.131); both together go beyond "
    "it, and further when the pull is annealed or kept to groups that fail.",
    source="Xu et al. 2025, KDRL, arXiv 2506.02208",
    metric="probability of the right answer",
    arms={
        "KDRL": partial(train, beta=1.0),
        "KDRL, annealed": annealed,
        "KDRL, groups that fail": partial(train, beta=1.0, applies="failed_groups"),
        "GRPO": train,
        "distillation": partial(train, rl=False, beta=1.0),
        "nothing learnt": partial(train, steps=0),
    },
    comparisons=[
        Comparison("KDRL", "GRPO", "higher", margin=0.1),
        Comparison("KDRL", "distillation", "higher", margin=0.05),
        Comparison("KDRL, annealed", "KDRL", "higher", margin=0.1),
        Comparison("KDRL, groups that fail", "KDRL", "higher", margin=0.1),
    ],
    controls=[Control("nothing learnt", ("KDRL", "KDRL, annealed", "KDRL, groups that fail"))],
    tasks=("six tokens",),
    seeds=8,
    curve="probability of the right answer",
    step_label="batches",
    setting=f"{PROMPTS} prompts, {PLACES} places, {TOKENS} tokens, 8 answers, plain gradient descent (2.0) on a table; the pull is 1 in these units. The "
    "teacher has .8 a token and .4 at the last.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
