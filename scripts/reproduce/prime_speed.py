"""Token rewards of a model that outcomes trained: does a policy get there in fewer updates (B7, experiment B)?"""

from __future__ import annotations

import math
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

PLACES, TOKENS, BATCH, UPDATES, RATE, GOAL = 16, 12, 32, 100, 0.03, 0.8
PROCESS_RATE = 0.05
NONE = 1e-12  # a process model that stays at the reference gives no rewards: what is left is the others' mean as the baseline


def learn(seed: int, task: str, process_rate: float = PROCESS_RATE, rate: float = RATE) -> Run:
    """Count updates until a whole answer is right with probability .8 (at most all of them)."""
    import torch
    from _tables import iterations, learner, table_of

    from polyathlon.envs.probes import TableTask

    draws = torch.Generator().manual_seed(seed)
    following = torch.randint(TOKENS, (PLACES, TOKENS), generator=draws)
    p = 0.82 + 0.16 * torch.rand(PLACES, TOKENS, generator=draws)

    def score(prompt: int, tokens: list[int]) -> float:
        before = [0, *tokens[:-1]]
        return float(all(token == int(following[t, before[t]]) for t, token in enumerate(tokens)))

    @torch.no_grad()
    def start(model, _) -> None:
        logit = (p / (1 - p)).log() + torch.tensor(TOKENS - 1.0).log()
        model.z.zero_()
        model.z[0].scatter_(2, following[..., None], logit[..., None])

    problem = TableTask(1, PLACES, TOKENS, score=score)
    words = {"process_learning_rate": process_rate}
    agent = learner(
        seed, "prime", f"table:1,{PLACES},{TOKENS}", problem, rate, BATCH, adam=True, start=start, group_size=4, recipe_kwargs=words
    )  # fmt: skip
    curve: list[tuple[float, float]] = []

    def watch(step: int) -> None:
        z, total, token = table_of(agent)[0].log_softmax(-1), 0.0, 0
        for t in range(PLACES):
            right = int(following[t, token])
            total, token = total + float(z[t, token, right]), right
        curve.append((float(step), math.exp(total)))

    iterations(agent, UPDATES, watch)
    reached = next((step for step, value in curve if value >= GOAL), float(UPDATES))
    return Run(reached, curve, {"last": curve[-1][1]})


CLAIM = Claim(
    name="prime_speed",
    statement=f"PRIME's token rewards beside the outcome bring the probability of a right answer to {GOAL} in fewer updates than the outcome alone. The paper's "
    "machinery makes a small difference here at best.",
    source="Cui et al. 2025, PRIME, arXiv 2502.01456",
    metric=f"updates until a whole answer is right with probability {GOAL}",
    arms={
        "PRIME": learn,
        "outcome alone": partial(learn, process_rate=NONE),
        "nothing learnt": partial(learn, rate=1e-12),
    },
    comparisons=[Comparison("PRIME", "outcome alone", "lower")],
    controls=[Control("nothing learnt", ("PRIME",))],
    tasks=("a chain of 16 tokens",),
    seeds=8,
    curve="probability of a right answer",
    step_label="updates",
    setting=f"A chain of {PLACES} tokens of {TOKENS} kinds, each right with .82 to .98 at first; {BATCH} groups of 4 whose accuracy lies in [.2, .8] an update, Adam ({RATE}) for "
    f"the policy, Adam ({PROCESS_RATE}) for the process model, beta .05; at most {UPDATES} updates. Outcome alone is PRIME with a process model that stays at the reference.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
