"""A reward model that learnt which answers are of one policy tells apart policies that it never saw, and by how much answers mix two of them (section 3)."""

from __future__ import annotations

import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

STATES, LENGTH, CONCENTRATION = "abcdefgh", 20, 0.3
TRAINED, HELD, SAMPLES, REPEATS = 400, 100, 120, 4
UPDATES, TRIPLES, RATE = 800, 48, 1e-3
MIXTURES = (0.0, 0.25, 0.5, 0.75, 1.0)


def write(chain: Any, draws: Any) -> str:
    """Write an answer: a walk of LENGTH states by the transitions `chain` [8, 8], begun anywhere."""
    state, walk = draws.integers(len(STATES)), ""
    for _ in range(LENGTH):
        state = draws.choice(len(STATES), p=chain[state])
        walk += STATES[state]
    return walk


@cache
def train(seed: int, updates: int = UPDATES, by_chance: bool = False) -> dict[str, float]:
    """Pre-train on triples of the first policies; score answers of the others, beside a reference of one of them."""
    import numpy as np
    import torch

    from polyathlon.agents import POLAR
    from polyathlon.envs.text.text_task import TextTask
    from polyathlon.records import policy_triples
    from polyathlon.wrappers import TokenAction

    torch.set_num_threads(1)
    draws = np.random.default_rng(seed)
    chains = draws.dirichlet(np.full(len(STATES), CONCENTRATION), size=(TRAINED + HELD, len(STATES)))
    answers = [
        {"prompt": "p", "completion": write(chains[k], draws), "policy": str(k)}
        for k in range(TRAINED)
        for _ in range(SAMPLES)
    ]
    data = policy_triples(answers, rounds=-(-UPDATES * TRIPLES // TRAINED), seed=seed)
    if by_chance:
        data = [
            {**row, "chosen": row["rejected"], "rejected": row["chosen"]} if draws.random() < 0.5 else row
            for row in data
        ]
    task = TextTask.from_records([{"prompt": "p"}], reward=lambda prompts, completions, **columns: [0.0] * len(prompts))
    env = TokenAction(task, model="tiny", max_new_tokens=LENGTH, max_length=64)
    agent = POLAR("tiny", env, data=data, num_prompts=TRIPLES, learning_rate=RATE, holdout=0.0, seed=seed, device="cpu")
    for _ in range(updates):
        agent.learn(1, log_interval=None, reset_num_timesteps=False)

    own = np.arange(TRAINED, TRAINED + HELD).repeat(REPEATS)
    other = TRAINED + (own - TRAINED + draws.integers(1, HELD, own.size)) % HELD
    references, scores = [write(chains[k], draws) for k in own], []
    for share in MIXTURES:
        mixed = (1 - share) * chains[own] + share * chains[other]
        scores.append(agent.score(["p"] * own.size, [write(chain, draws) for chain in mixed], references))
    first, last = np.asarray(scores[0]), np.asarray(scores[-1])
    steps = -np.diff(np.mean(scores, axis=1)) / (np.std(scores) + 1e-12)
    return {
        "accuracy": float(0.5 + 0.5 * np.sign(first - last).mean()),
        "least step": float(steps.min()),
    }


def measure(seed: int, task: str, what: str, **words: Any) -> Run:
    """Score one of the two measures."""
    found = train(seed, **words)
    return Run(found[what], extra={name: value for name, value in found.items() if name != what})


def constant(seed: int, task: str, value: float) -> Run:
    """Return a number to compare with."""
    return Run(value)


CLAIM = Claim(
    name="polar_policies",
    statement="A model pre-trained to tell whether two answers are of one policy ranks an answer of the reference's policy above another policy's in more than .7 of the cases, of policies that "
    "it never saw, and its mean score falls with every quarter of another policy that is mixed into the answers.",
    source="Dou et al. 2025, POLAR, arXiv 2507.05197",
    metric="share of answers ranked rightly; least fall of the mean score from one mixture to the next, in standard deviations of the scores",
    arms={
        "POLAR": partial(measure, what="accuracy"),
        "seven tenths": partial(constant, value=0.7),
        "POLAR, mixtures": partial(measure, what="least step"),
        "no fall": partial(constant, value=0.0),
        "labels by chance": partial(measure, what="accuracy", by_chance=True),
        "labels by chance, mixtures": partial(measure, what="least step", by_chance=True),
    },
    comparisons=[
        Comparison("POLAR", "seven tenths", "higher"),
        Comparison("POLAR, mixtures", "no fall", "higher"),
    ],
    controls=[
        Control("labels by chance", ("POLAR",)),
        Control("labels by chance, mixtures", ("POLAR, mixtures",)),
    ],
    tasks=("Markov chains",),
    seeds=8,
    setting=f"policies are chains of {len(STATES)} states with transitions drawn by Dirichlet({CONCENTRATION}), their answers walks of {LENGTH} states; {TRAINED} policies with {SAMPLES} answers each for "
    f"training, {HELD} others for {HELD * REPEATS} references and answers of mixtures {MIXTURES}; POLAR on 'tiny', {UPDATES} updates of {TRIPLES} triples, Adam {RATE}.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
