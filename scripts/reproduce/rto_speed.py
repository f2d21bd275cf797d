"""A model that DPO trained rewards single tokens: PPO needs fewer updates (section 2.14)."""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

PLACES, TOKENS, UPDATES, BATCH, RATE, GOAL = 12, 8, 140, 32, 0.03, 0.8
PAIRS, DPO_UPDATES, DPO_RATE, EVERY = 2000, 60, 0.05, 5
TABLE = f"table:1,{PLACES},{TOKENS},prev=0"


def guide(seed: int, hidden: Any, folder: str, shuffled: bool) -> str:
    """Train a table by DPO on pairs of random strings, labelled by their matches with the hidden one; return its file."""
    import numpy as np
    from _pairs import learner, train

    rng = np.random.default_rng(seed)
    rows = []
    for a, b in rng.integers(TOKENS, size=(PAIRS, 2, PLACES)):
        gap = 2 * (float((a == hidden).sum()) - float((b == hidden).sum()))
        wins = rng.random() < (0.5 if shuffled else 1 / (1 + np.exp(-gap)))
        better, worse = (a, b) if wins else (b, a)
        rows.append({"prompt": "p0", "chosen": " ".join(map(str, better)), "rejected": " ".join(map(str, worse))})
    agent = learner(seed, "dpo", TABLE, rows, 100, DPO_RATE, beta=0.1)
    train(agent, DPO_UPDATES)
    agent.save(f"{folder}/dpo.zip")
    return f"{folder}/dpo.zip"


def learn(seed: int, task: str, recipe: str, shuffled: bool = False) -> Run:
    """Count updates until the expected share of right tokens is .8 (at most all of them)."""
    import numpy as np
    import torch
    from _tables import iterations, learner, table_of

    from polyathlon.envs.probes import TableTask

    hidden = np.random.default_rng(seed).integers(TOKENS, size=PLACES)
    problem = TableTask(1, PLACES, TOKENS, score=lambda prompt, tokens: float((np.array(tokens) == hidden).mean()))
    words: dict[str, Any] = {"n_epochs": 1, "minibatches": 1, "rewards.1.beta": 0.01}
    curve: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        models = {"side_models": {"dpo": guide(seed, hidden, folder, shuffled)}} if recipe == "rto" else {}
        agent = learner(
            seed, recipe, TABLE, problem, RATE, BATCH, adam=True, group_size=1, recipe_kwargs=words, **models
        )

        def watch(step: int) -> None:
            if step % EVERY == 0:
                p = table_of(agent)[0, :, 0].softmax(-1)
                curve.append((float(step), float(p[torch.arange(PLACES), torch.as_tensor(hidden)].mean())))

        iterations(agent, UPDATES, watch)
    reached = next((step for step, value in curve if value >= GOAL), float(UPDATES))
    return Run(reached, curve, {"last": curve[-1][1]})


CLAIM = Claim(
    name="rto_speed",
    statement="A hidden string of 12 tokens, rewarded at its end by the share of matches: with token rewards of a model that DPO trained, PPO needs over 10 fewer of its "
    f"{UPDATES} updates until the share is {GOAL}.",
    source="Zhong et al. 2024, RTO, arXiv 2404.18922",
    metric=f"updates until the expected share of right tokens is {GOAL}",
    arms={
        "RTO": partial(learn, recipe="rto"),
        "PPO": partial(learn, recipe="rlhf_ppo"),
        "RTO, labels at random": partial(learn, recipe="rto", shuffled=True),
    },
    comparisons=[Comparison("RTO", "PPO", "lower", margin=10.0)],
    controls=[Control("RTO, labels at random", ("RTO",))],
    tasks=("12 tokens",),
    seeds=8,
    curve="share of right tokens",
    step_label="updates",
    setting=f"{PLACES} places of {TOKENS} tokens; DPO (beta .1) on {PAIRS} pairs of random strings with P = sigma(2 x the difference of matches), {DPO_UPDATES} updates of 100 pairs, Adam "
    f"({DPO_RATE}); then {UPDATES} updates of {BATCH} strings, Adam ({RATE}); b1 .05 (each token within .05), b2 .01, gae lambda .95.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
