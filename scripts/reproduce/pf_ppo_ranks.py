"""Learning from the best and the worst of five answers helps where a reward model is right at its extremes (B17)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

PROMPTS, ARMS, STEPS = 64, 16, 60
UNINFORMED, NOISE, SPREAD = 0.7, 0.2, 0.5


def train(seed: int, task: str, ranks: str, fixed: bool = False, steps: int = STEPS) -> Run:
    """A reward model that knows nothing of 7 in 10 answers, anew for each or fixed by the answer. Score the true success."""
    import numpy as np
    import torch
    from _tables import chosen, iterations, learner

    from polyathlon.envs.language import Verdict
    from polyathlon.envs.probes import TableTask

    problem = TableTask(PROMPTS, 1, ARMS, seed=seed)
    targets = problem.targets
    draws = np.random.default_rng(seed + 1)
    is_blind = draws.random((PROMPTS, ARMS)) < UNINFORMED
    error = draws.normal(size=(PROMPTS, ARMS))

    def score(prompt: int, tokens: list[int]) -> Verdict:
        arm = tokens[0]
        is_right = arm == targets[prompt, 0]
        blind, noise = (
            (is_blind[prompt, arm], error[prompt, arm]) if fixed else (draws.random() < UNINFORMED, draws.normal())
        )
        reward = SPREAD * noise if blind else (1.0 if is_right else -1.0) + NOISE * noise
        return Verdict(bool(is_right), float(reward), False, "as the reward model says")

    problem.score = score
    agent = learner(
        seed, "pf_ppo", f"table:{PROMPTS},1,{ARMS}", problem, 0.3, PROMPTS, group_size=5,
        start=lambda model, _: model.prefer(torch.as_tensor(targets), 0.15), recipe_kwargs={"ranks": ranks, "n_epochs": 1, "minibatches": 1},
    )  # fmt: skip
    curve: list[tuple[float, float]] = []

    def watch(step: int) -> None:
        if step % 10 == 0:
            curve.append((float(step), float(chosen(agent).gather(1, torch.as_tensor(targets)).mean())))

    iterations(agent, steps, watch)
    return Run(curve[-1][1], curve)


CLAIM = Claim(
    name="pf_ppo_ranks",
    statement="With a reward model whose errors are drawn anew for each answer, the best and the worst of five answers teach more than all five, and the best alone "
    "less. Where the error is a fixed function of the answer, choosing does not help.",
    source="Shen and Zhang 2024, PF-PPO, arXiv 2409.06957",
    metric="true success after the last batch",
    arms={
        "best and worst": partial(train, ranks="best_worst"),
        "best and one other": partial(train, ranks="best_random"),
        "best": partial(train, ranks="best"),
        "all": partial(train, ranks="all"),
        "best and worst, fixed error": partial(train, ranks="best_worst", fixed=True),
        "all, fixed error": partial(train, ranks="all", fixed=True),
        "nothing learnt": partial(train, ranks="best_worst", steps=0),
    },
    comparisons=[
        Comparison("best and worst", "all", "higher", margin=0.03),
        Comparison("all", "best", "higher", margin=0.03),
        Comparison("all, fixed error", "best and worst, fixed error", "not lower", margin=0.03),
    ],
    controls=[Control("nothing learnt", ("best and worst", "all", "all, fixed error"))],
    tasks=("a noisy reward model",),
    seeds=8,
    curve="true success",
    step_label="batches",
    setting=f"{PROMPTS} prompts, {ARMS} arms, right ones at .15, 5 answers, plain gradient descent (0.3) on a table with its critic, {STEPS} batches; the reward "
    f"model gives N(0, {SPREAD}) with probability {UNINFORMED}, else 1 or -1 with noise {NOISE}.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
