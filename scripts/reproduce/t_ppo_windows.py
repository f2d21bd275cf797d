"""Windows save decoding steps where one answer is much longer than the others, and cost them where they are too short (B15)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

LENGTHS, TOKENS, ROWS, GOAL, MOST = (4, 4, 4, 4, 4, 8, 8, 32), 5, 128, 0.9, 4000
END = TOKENS - 1


def train(seed: int, task: str, window: int | None, rate: float = 4.0) -> Run:
    """Answers of 4 to 32 tokens. Score the decoding steps, one after the other, until the mean success is .9 (or the most)."""
    import numpy as np
    import torch
    from _tables import followed, iterations, learner

    from polyathlon.envs.probes import TableTask

    prompts, places = len(LENGTHS), max(LENGTHS) + 1
    targets = np.random.default_rng(seed).integers(TOKENS - 1, size=(prompts, places))
    p = torch.full((prompts, places), 0.8)
    p[-1] = 0.93
    for x, length in enumerate(LENGTHS):
        targets[x, length:] = END
    problem = TableTask(
        prompts, places, TOKENS, lambda x, tokens: float(tokens == targets[x, : LENGTHS[x] + 1].tolist())
    )

    def start(model, _) -> None:
        model.prefer(torch.as_tensor(targets), p)
        for x, length in enumerate(LENGTHS):  # the end stands behind the last token, and nowhere else
            model.z[x, :length, :, END] = -30.0
            model.z[x, length:] = -30.0
            model.z[x, length:, :, END] = 30.0

    recipe = "ppo" if window is None else "t_ppo"
    words = {"n_epochs": 1, "minibatches": 1, "group_size": ROWS // prompts, "vf_coef": 1.0}
    if window is not None:
        words |= {"window": window, "ignore": 0, "nll_coef": 0.0}
    agent = learner(
        seed, recipe, f"table:{prompts},{places},{TOKENS},ends=1", problem, rate, prompts,
        start=torch.no_grad()(start), recipe_kwargs=words,
    )  # fmt: skip
    spent = 0
    curve: list[tuple[float, float]] = []
    collect = agent.collect_episodes

    def counted():
        nonlocal spent
        episodes = collect()
        spent += max(int(sum(e.extra["window"])) if window is not None else e.length for e in episodes)
        return episodes

    agent.collect_episodes = counted
    success = float(followed(agent, targets).mean())
    while success < GOAL and spent < MOST:
        iterations(agent, 1)
        success = float(followed(agent, targets).mean())
        curve.append((float(spent), success))
    return Run(float(min(spent, MOST)), curve, {"success": success})


def half_of_whole(seed: int, task: str) -> Run:
    """Half of the steps of whole answers."""
    run = train(seed, task, window=None)
    return Run(run.score / 2, [], run.extra)


CLAIM = Claim(
    name="t_ppo_windows",
    statement="To the same mean success windows of a quarter of the longest answer take at most half of the decoding steps of whole answers.",
    source="Fan et al. 2025, T-PPO, arXiv 2506.15050",
    metric=f"decoding steps, one after the other, until the mean success is {GOAL}",
    arms={
        "window of 8": partial(train, window=8),
        "window of 16": partial(train, window=16),
        "window of 4": partial(train, window=4),
        "half of whole answers": half_of_whole,
        "whole answers": partial(train, window=None),
        "window of 8, nothing learnt": partial(train, window=8, rate=0.0),
    },
    comparisons=[
        Comparison("window of 8", "half of whole answers", "lower"),
        Comparison("window of 16", "whole answers", "lower"),
        Comparison("window of 8", "window of 4", "lower"),
    ],
    controls=[Control("window of 8, nothing learnt", ("window of 8", "window of 16"))],
    tasks=("lengths 4 to 32",),
    seeds=8,
    curve="mean success",
    step_label="decoding steps",
    setting=f"{len(LENGTHS)} prompts with answers of {LENGTHS} tokens, {ROWS} answers a batch, plain gradient descent (4.0) on a table with its critic; at most "
    f"{MOST} decoding steps.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
