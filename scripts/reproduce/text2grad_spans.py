"""Critiques that name parts of answers teach faster than the same reward in one number, and half of them still do (section 2.16)."""

from __future__ import annotations

import sys
import zlib
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

PLACES, TOKENS, UPDATES, BATCH, RATE, KL = 16, 10, 100, 16, 0.25, 0.02
RIGHT = tuple((7 * t + 3) % TOKENS for t in range(PLACES))  # all tokens are alike to a table of zeros

Spans = list[tuple[int, int, float]]


def every(prompt: str, answer: str) -> Spans:
    """Name each word: good where it is the right one of its place, else poor."""
    found, place = [], 0
    for t, word in enumerate(answer.split()):
        found.append((place, place + len(word), 1.0 if int(word) == RIGHT[t] else -1.0))
        place += len(word) + 1
    return found


def drawn(answer: str, t: int) -> bool:
    """Return a coin of an answer and a place."""
    return bool(zlib.crc32(f"{t} {answer}".encode()) & 1)


def half(prompt: str, answer: str) -> Spans:
    """Name about half of the words."""
    return [span for t, span in enumerate(every(prompt, answer)) if drawn(answer, t)]


def chance(prompt: str, answer: str) -> Spans:
    """Name each word, good or poor by a coin."""
    return [(start, end, 1.0 if drawn(answer, t) else -1.0) for t, (start, end, _) in enumerate(every(prompt, answer))]


def none(prompt: str, answer: str) -> Spans:
    """Name nothing."""
    return []


def learn(seed: int, task: str, critic: str, is_paid: bool = False, gamma: float = 1.0) -> Run:
    """Learn a hidden string; score the expected share of right tokens."""
    import torch
    from _tables import iterations, learner

    from polyathlon.envs.probes import TableTask

    def paid(prompt: int, tokens: list[int]) -> float:
        return float(sum(1 if a == b else -1 for a, b in zip(tokens, RIGHT, strict=True)))

    words = {"critic": f"text2grad_spans:{critic}", "terminal": is_paid, "beta": KL, "target": None, "gamma": gamma}
    agent = learner(
        seed,
        "text2grad",
        f"table:1,{PLACES},{TOKENS},prev=0",
        TableTask(1, PLACES, TOKENS, score=paid),
        RATE / BATCH,
        BATCH,
        recipe_kwargs={**words, "n_epochs": 1, "aggregation": "seq-mean-token-sum"},
    )
    right = torch.tensor(RIGHT)

    def share() -> float:
        z = agent.policy.language_model.z.detach()[0, :, 0]
        return float(z.softmax(-1)[torch.arange(PLACES), right].mean())

    curve: list[tuple[float, float]] = []
    iterations(agent, UPDATES, lambda step: curve.append((float(step), share())) if step % 20 == 0 else None)
    return Run(share(), curve)


CLAIM = Claim(
    name="text2grad_spans",
    statement=f"Scores of words teach a hidden string faster than their sum at the end of the answer: after {UPDATES} updates the share of right tokens is higher by more "
    "than .1; with half of the words left out of the critique it is still higher.",
    source="Wang et al. 2025, Text2Grad, arXiv 2505.22338",
    metric=f"expected share of right tokens after {UPDATES} updates",
    arms={
        "every word": partial(learn, critic="every"),
        "half of the words": partial(learn, critic="half"),
        "their sum at the end": partial(learn, critic="none", is_paid=True),
        "every word by chance": partial(learn, critic="chance"),
    },
    comparisons=[
        Comparison("every word", "their sum at the end", "higher", margin=0.1),
        Comparison("half of the words", "their sum at the end", "higher"),
    ],
    controls=[Control("every word by chance", ("every word", "half of the words"))],
    tasks=("a hidden string",),
    seeds=8,
    curve="share of right tokens",
    step_label="updates",
    setting=f"{PLACES} places of {TOKENS} tokens, a table of logits by place; row text2grad with gamma 1, lambda .95, the whole divergence with {KL}, one pass a batch of {BATCH} "
    f"answers, plain gradient descent ({RATE}); the task pays the same total in one number.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
