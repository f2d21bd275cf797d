"""Each f-divergence of f-DPG is the one that its policy makes least, where the target cannot be reached (section 2.4)."""

from __future__ import annotations

import math
import sys
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

TOKENS, UPDATES, BATCH, RATE = 6, 250, 128, 0.03
MODES = {(0, 0): 0.5, (5, 5): 0.3, (4, 4): 0.1}  # the rest is spread evenly


def target() -> Any:
    """Return the target, [V, V]."""
    import torch

    p = torch.full((TOKENS, TOKENS), (1 - sum(MODES.values())) / (TOKENS**2 - len(MODES)), dtype=torch.float64)
    for mode, share in MODES.items():
        p[mode] = share
    return p


@lru_cache(maxsize=8)
def policy(seed: int, divergence: str, is_other: bool) -> Any:
    """Train a product of two tokens' distributions; every measure is read of one run.

    Args:
        seed: of the run.
        divergence: objective.
        is_other: whether the rewards are those of a target whose modes lie elsewhere.

    Returns:
        Its probabilities [V, V].
    """
    import torch
    from _tables import iterations, learner, table_of

    from polyathlon.envs.probes import TableTask

    p = target().roll((1, 2), (0, 1)) if is_other else target()
    problem = TableTask(1, 2, TOKENS, score=lambda prompt, tokens: math.log(TOKENS**2 * float(p[tuple(tokens)])))
    words = {"divergence": divergence, "beta": 1.0}

    def start(model: Any, generator: Any) -> None:
        model.z.data.copy_(0.1 * torch.randn(model.z.shape, generator=generator))

    agent = learner(
        seed, "fdpg", f"table:1,2,{TOKENS},prev=0", problem, RATE, 1, start=start, adam=True, group_size=BATCH,
        recipe_kwargs=words,
    )  # fmt: skip
    iterations(agent, UPDATES)
    first, second = table_of(agent)[0, :, 0].double().softmax(-1)
    return first[:, None] * second[None]


def measured(seed: int, task: str, divergence: str, measure: str, is_other: bool = False) -> Run:
    """Score a divergence between the policy and the target; exact."""
    p, q = target(), policy(seed, divergence, is_other)
    middle = (p + q) / 2

    def kl(a: Any, b: Any) -> float:
        return float((a * (a.clamp(min=1e-300) / b.clamp(min=1e-300)).log()).sum())

    found = {
        "forward KL": kl(p, q),
        "reverse KL": kl(q, p),
        "total variation": float((p - q).abs().sum() / 2),
        "JS": (kl(p, middle) + kl(q, middle)) / 2,
    }
    support = sum(float(q[mode]) for mode in MODES)
    return Run(found[measure], [], {"mass on the modes": support})


OBJECTIVES = {"forward_kl": "forward KL", "reverse_kl": "reverse KL", "tv": "total variation"}
COMPARED = [(objective, other) for objective in OBJECTIVES for other in OBJECTIVES if other != objective]

CLAIM = Claim(
    name="fdpg_divergences",
    statement="A target of three separate modes and a policy that is a product: of f-DPG with the forward KL, the reverse KL and the total variation each ends with less of its "
    "own divergence from the target than the other two.",
    source="Go et al. 2023, f-DPG, arXiv 2302.08215",
    metric="divergence from the target that the arm's name says, exact",
    arms={
        **{
            f"{objective}, by {measure}": partial(measured, divergence=objective, measure=measure)
            for measure in OBJECTIVES.values()
            for objective in OBJECTIVES
        },
        **{
            f"other target, by {measure}": partial(measured, divergence="reverse_kl", measure=measure, is_other=True)
            for measure in OBJECTIVES.values()
        },
    },
    comparisons=[
        Comparison(f"{one}, by {OBJECTIVES[one]}", f"{other}, by {OBJECTIVES[one]}", "lower") for one, other in COMPARED
    ],
    controls=[
        Control(f"other target, by {measure}", (f"{objective}, by {measure}",))
        for objective, measure in OBJECTIVES.items()
    ],
    tasks=("two tokens",),
    seeds=8,
    setting=f"Strings of two of {TOKENS} tokens; target .5, .3, .1 on 00, 55, 44 and the rest evenly; a uniform reference, rewards log(36 p), beta 1; {UPDATES} updates of {BATCH} "
    f"answers, Adam ({RATE}) on a table of two independent places. Control: the reverse KL to a target whose modes lie on other strings.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
