"""Advantages raised by the entropy of the reasoning speed up learning to call a function (B18)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

PROMPTS, THOUGHTS, TOKENS, STEPS = 64, 3, 12, 50
OPEN, CLOSE = 0, 1  # the tokens that stand for the think tags


def train(seed: int, task: str, lam: float, steps: int = STEPS) -> Run:
    """Three thoughts, a tool, an argument; the last thought is a filler at first. Score the mean reward."""
    import numpy as np
    import torch
    from _tables import iterations, learner

    from polyathlon.envs.probes import TableTask

    draws = np.random.default_rng(seed)
    key, tool, argument = draws.integers(2, TOKENS, size=(3, PROMPTS))

    def score(prompt: int, tokens: list[int]) -> float:
        thought, called = tokens[THOUGHTS], tokens[THOUGHTS + 2 :]
        is_right = called == [tool[prompt], argument[prompt]]
        return float(is_right and (thought == key[prompt] or draws.random() < 0.5))

    def start(model, _) -> None:
        rows = torch.arange(PROMPTS)
        model.z[:, 0, :, OPEN] = model.z[:, THOUGHTS + 1, :, CLOSE] = 12.0
        model.z[:, 1 : THOUGHTS + 1, :, :2] = model.z[
            :, THOUGHTS + 2 :, :, :2
        ] = -12.0  # tags stand in their places only
        model.z[:, 1 : THOUGHTS + 1, :, 2] = 3.0
        model.z[rows, THOUGHTS + 2, :, torch.as_tensor(tool)] = 6.0

    places = THOUGHTS + 4
    problem = TableTask(PROMPTS, places, TOKENS, score=score)
    agent = learner(
        seed, "function_calls", f"table:{PROMPTS},{places},{TOKENS}", problem, 0.3, PROMPTS, group_size=8,
        start=torch.no_grad()(start), recipe_kwargs={"lam": lam, "kl_coef": 0.0, "opened": str(OPEN), "closed": str(CLOSE)},
    )  # fmt: skip
    iterations(agent, steps)
    episodes = [e for _ in range(8) for e in agent.collect_episodes()]
    return Run(sum(e.total for e in episodes) / len(episodes))


CLAIM = Claim(
    name="function_calls_entropy",
    statement="Early in training the reward is higher with the entropy of the reasoning added to advantages than without; an effect that is small.",
    source="Hao et al. 2025, FunRL, arXiv 2508.05118",
    metric="mean reward",
    arms={
        "lambda 1": partial(train, lam=1.0),
        "lambda .4": partial(train, lam=0.4),
        "GRPO": partial(train, lam=0.0),
        "nothing learnt": partial(train, lam=1.0, steps=0),
    },
    comparisons=[
        Comparison("lambda 1", "GRPO", "higher", margin=0.02),
        Comparison("lambda .4", "GRPO", "higher"),
    ],
    controls=[Control("nothing learnt", ("lambda 1", "lambda .4"))],
    tasks=("a call",),
    seeds=8,
    setting=f"{PROMPTS} prompts, {THOUGHTS} thoughts between tags, a tool and an argument, {TOKENS} tokens, 8 answers, plain gradient descent (0.3) on a table, "
    f"{STEPS} batches; a right call counts with .5 unless the last thought is the prompt's key; no divergence.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
