"""DPO moves probability to an arm that no pair covers; RPO's imitation and HyPO's divergence on fresh answers hold it (sections 2.5, 2.9)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

FEATURES, BASE, REWARD = ((1, 0, 1), (0, 0, 1), (2, 1, 0)), (0.0, 0.0, -2.0), (1.0, 0.0, -1.0)
BETA, RIGHT, UPDATES, RATE, PAIRS, BATCH = 0.1, 0.9, 400, 0.5, 400, 40


def learn(seed: int, task: str, recipe: str, updates: int = UPDATES, **words: float) -> Run:
    """Learn from pairs of the first two arms; score the true reward of the policy."""
    import numpy as np
    import torch
    from _pairs import learner, linear_policy, log_probabilities, pair, train

    policy = linear_policy(torch.tensor([FEATURES], dtype=torch.float32), torch.tensor([BASE]))
    is_right = np.random.default_rng(seed).random(PAIRS) < RIGHT
    rows = [pair(0, 1) if right else pair(1, 0) for right in is_right]
    given = {"beta": BETA, **words} | ({"group_size": 4, "problems": 1} if recipe == "hypo" else {})
    agent = learner(seed, recipe, "table:1,1,3,prev=0", rows, BATCH, RATE, policy=policy, adam=False, **given)
    curve: list[tuple[float, float]] = []

    def value() -> float:
        return float((log_probabilities(agent)[0].exp() * torch.tensor(REWARD)).sum())

    train(agent, updates, lambda step: curve.append((float(step), value())) if step % 20 == 0 else None)
    return Run(value(), curve, {"uncovered arm": float(log_probabilities(agent)[0, 2].exp())})


CLAIM = Claim(
    name="hypo_coverage",
    statement="Pairs of two arms, a third that shares features with them: DPO ends at the third one, which is the worst; RPO and HyPO keep a reward that is higher by "
    "more than .5 (HyPO's divergence on four fresh answers an update; RPO's imitation at eta 1).",
    source="Song et al. 2024, HyPO, arXiv 2406.01462; Liu et al. 2024, RPO, arXiv 2405.16436",
    metric="true reward of the policy, from -1 to 1",
    arms={
        "HyPO": partial(learn, recipe="hypo", lam=0.05),
        "RPO": partial(learn, recipe="rpo", eta=1.0),
        "DPO": partial(learn, recipe="dpo"),
        "HyPO, lam .001": partial(learn, recipe="hypo", lam=0.001),
        "RPO, eta .001": partial(learn, recipe="rpo", eta=0.001),
    },
    comparisons=[
        Comparison("HyPO", "DPO", "higher", margin=0.5),
        Comparison("RPO", "DPO", "higher", margin=0.5),
    ],
    controls=[Control("HyPO, lam .001", ("HyPO",)), Control("RPO, eta .001", ("RPO",))],
    tasks=("three arms",),
    seeds=8,
    curve="true reward",
    step_label="updates",
    setting=f"Features {FEATURES}, reference softmax{BASE}, rewards {REWARD}, pairs of the first two arms with P = {RIGHT}; beta {BETA}, {UPDATES} updates of {BATCH} of "
    f"{PAIRS} pairs, plain gradient descent ({RATE}) on weights of the features.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
