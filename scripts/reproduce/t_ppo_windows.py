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
    """Answers of 4 to 32 tokens, all of which must be right. Score the decoding steps, one after the other, until the mean success is .9 (or the most)."""
    import numpy as np
    import torch
    from _tables import followed, iterations, learner

    from polyathlon.envs.probes import TableTask

    prompts, places = len(LENGTHS), max(LENGTHS) + 1
    targets = np.zeros((prompts, places), np.int64)  # 0 is right everywhere
    p = torch.full((prompts, places), 0.8)
    p[-1] = 0.93
    for x, length in enumerate(LENGTHS):
        targets[x, length:] = END
    problem = TableTask(
        prompts, places, TOKENS, lambda x, tokens: float(tokens == targets[x, : LENGTHS[x] + 1].tolist())
    )

    def start(model, _) -> None:
        model.prefer(torch.as_tensor(targets), p)
        model.z[
            :, :, 1:END, 0
        ] = -30.0  # after a wrong token all are wrong, so that the critic sees in the last one whether all were right
        for x, length in enumerate(LENGTHS):  # the end stands behind the last token, and nowhere else
            model.z[x, :length, :, END] = -30.0
            model.z[x, length:] = -30.0
            model.z[x, length:, :, END] = 30.0

    recipe = "ppo" if window is None else "t_ppo"
    words = {"n_epochs": 1, "minibatches": 1, "group_size": ROWS // prompts, "vf_coef": 0.5}
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
        if not curve or spent - curve[-1][0] >= 64 or success >= GOAL or spent >= MOST:
            curve.append((float(spent), success))
    return Run(float(min(spent, MOST)), curve, {"success": success})


def part_of_whole(seed: int, task: str) -> Run:
    """Six tenths of the steps of whole answers."""
    run = train(seed, task, window=None)
    return Run(0.6 * run.score, [], run.extra)


CLAIM = Claim(
    name="t_ppo_windows",
    statement="To the same mean success windows of a quarter of the longest answer take less than six tenths of the decoding steps of whole answers, windows of half of "
    "it fewer too, and windows of an eighth many more.",
    source="Fan et al. 2025, T-PPO, arXiv 2506.15050",
    metric=f"decoding steps, one after the other, until the mean success is {GOAL}",
    arms={
        "window of 8": partial(train, window=8),
        "window of 16": partial(train, window=16),
        "window of 4": partial(train, window=4),
        "six tenths of whole answers": part_of_whole,
        "whole answers": partial(train, window=None),
        "window of 8, nothing learnt": partial(train, window=8, rate=0.0),
    },
    comparisons=[
        Comparison("window of 8", "six tenths of whole answers", "lower"),
        Comparison("window of 16", "whole answers", "lower"),
        Comparison("window of 8", "window of 4", "lower"),
    ],
    controls=[Control("window of 8, nothing learnt", ("window of 8", "window of 16"))],
    tasks=("lengths 4 to 32",),
    seeds=8,
    curve="mean success",
    step_label="decoding steps",
    setting=f"{len(LENGTHS)} prompts with answers of {LENGTHS} tokens, {ROWS} answers a batch, plain gradient descent (4.0) on a table with its critic; at most "
    f"{MOST} decoding steps. After a wrong token all further ones are wrong, so that the critic, which sees the last one, knows whether all were right. Rate and critic "
    "were chosen on development seeds 0 and 1, where the share was .53 and .51.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
