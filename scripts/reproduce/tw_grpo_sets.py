"""Partial credit for sets of right options, and weights of the places where answers differ, each help (B9)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

PROMPTS, FILLER, OPTIONS, STEPS = 32, 6, 5, 75


def train(seed: int, task: str, soft: bool, alpha: float, steps: int = STEPS) -> Run:
    """Six sure tokens, then yes or no to five options. Score how often exactly the right options are named."""
    import numpy as np
    import torch
    from _tables import iterations, learner

    from polyathlon.envs.language import Verdict
    from polyathlon.envs.probes import TableTask

    drawn = np.random.default_rng(seed).integers(1, 2**OPTIONS, size=PROMPTS)
    gold = [{i for i in range(OPTIONS) if code >> i & 1} for code in drawn.tolist()]

    def score(prompt: int, tokens: list[int]) -> Verdict:
        named = {i for i, token in enumerate(tokens[FILLER:]) if token == 1}
        share = len(named) / len(gold[prompt]) if named <= gold[prompt] else 0.0
        is_right = named == gold[prompt]
        return Verdict(is_right, share if soft else float(is_right), False, "right" if is_right else "wrong")

    def start(model, _) -> None:
        model.z[:, :FILLER, :, 0] = 5.0  # .993 each

    places = FILLER + OPTIONS
    problem = TableTask(PROMPTS, places, 2, score=score)
    agent = learner(
        seed, "tw_grpo", f"table:{PROMPTS},{places},2", problem, 2.0, PROMPTS, group_size=8,
        start=torch.no_grad()(start), recipe_kwargs={"alpha": alpha},
    )  # fmt: skip
    iterations(agent, steps)
    episodes = [e for _ in range(8) for e in agent.collect_episodes()]
    return Run(sum(bool(e.is_correct) for e in episodes) / len(episodes))


CLAIM = Claim(
    name="tw_grpo_sets",
    statement="Partial credit for a part of the right options raises the share of exact answers, weights of the places where answers differ raise it too, and "
    "both together raise it most.",
    source="Dang et al. 2025, TW-GRPO, arXiv 2505.24718",
    metric="share of answers that name exactly the right options",
    arms={
        "both": partial(train, soft=True, alpha=1.7),
        "partial credit": partial(train, soft=True, alpha=1.0),
        "weights": partial(train, soft=False, alpha=1.7),
        "neither": partial(train, soft=False, alpha=1.0),
        "nothing learnt": partial(train, soft=True, alpha=1.7, steps=0),
    },
    comparisons=[
        Comparison("both", "neither", "higher", margin=0.1),
        Comparison("partial credit", "neither", "higher", margin=0.05),
        Comparison("weights", "neither", "higher", margin=0.02),
        Comparison("both", "partial credit", "higher"),
    ],
    controls=[Control("nothing learnt", ("both", "partial credit", "weights"))],
    tasks=("five options",),
    seeds=8,
    setting=f"{PROMPTS} prompts, {FILLER} sure tokens and {OPTIONS} options, 8 answers, plain gradient descent (2.0) on a table, {STEPS} batches.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
