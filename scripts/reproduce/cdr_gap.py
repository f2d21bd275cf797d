"""The log-ratio of a tuned model over its start ranks answers: the better the wider the gap of both, and better than the tuned model alone (sections 3 and 4)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

PROMPTS, ANSWERS, FEATURES, PAIRS, HELD, BATCH, RATE, BETA, NOISE = 64, 6, 8, 600, 2000, 50, 0.01, 0.1, 0.3
EARLY, LATE = 2, 200


def setting(seed: int) -> tuple[Any, Any, Any, list[dict[str, Any]]]:
    """Return features, the start's logits, true rewards, and pairs of the first half of the prompts, labelled by Bradley-Terry."""
    import torch
    from _pairs import pair

    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(PROMPTS, ANSWERS, FEATURES, generator=draw)
    base = torch.randn(PROMPTS, ANSWERS, generator=draw)
    reward = features @ torch.randn(FEATURES, generator=draw) / FEATURES**0.5
    rows = []
    for x in torch.randint(PROMPTS // 2, (PAIRS,), generator=draw).tolist():
        a, b = torch.randperm(ANSWERS, generator=draw)[:2].tolist()
        is_first = float(torch.rand((), generator=draw)) < float((reward[x, a] - reward[x, b]).sigmoid())
        rows.append(pair(*((a, b) if is_first else (b, a)), prompt=x))
    return features, base, reward, rows


def measure(seed: int, task: str, updates: int = LATE, noise: float = 0.0, alone: bool = False) -> Run:
    """Tune a model by DPO, and score how often the ratio to its start ranks two answers to a prompt of the other half rightly; ties are half right."""
    import torch
    from _pairs import learner, linear_policy, log_probabilities, train

    from polyathlon.envs.models.density_ratio import DensityRatio

    features, base, reward, rows = setting(seed)
    name, policy = f"table:{PROMPTS},1,{ANSWERS},prev=0", linear_policy(features, base)
    strong, weak = (learner(seed, "dpo", name, rows, BATCH, RATE, policy=policy, beta=BETA) for _ in range(2))
    train(strong, updates)
    draw = torch.Generator().manual_seed(10_000 + seed)
    if noise:
        for weight in strong.policy.language_model.parameters():
            weight.data += noise * torch.randn(weight.shape, generator=draw)
    tokenizer = strong.token_env.rules.tokenizer
    ratio = DensityRatio(*((agent.policy.language_model, tokenizer) for agent in (strong, weak)), rows=512)
    held = range(PROMPTS // 2, PROMPTS)
    asked, said = zip(*((f"p{x}", str(a)) for x in held for a in range(ANSWERS)))
    scores = torch.tensor(ratio.score(asked, said)).view(-1, ANSWERS)
    logs = log_probabilities(strong)[PROMPTS // 2 :]
    found, true = (logs if alone else scores), reward[PROMPTS // 2 :]
    x = torch.randint(len(true), (HELD,), generator=draw)
    a = torch.randint(ANSWERS, (HELD,), generator=draw)
    b = (a + torch.randint(1, ANSWERS, (HELD,), generator=draw)) % ANSWERS
    said_so, is_so = found[x, a] - found[x, b], true[x, a] - true[x, b]
    accuracy = float((0.5 + 0.5 * said_so.sign() * is_so.sign()).mean())
    gap = float(((logs.exp() - log_probabilities(weak)[PROMPTS // 2 :].exp()) * true).sum(1).mean())
    return Run(accuracy, extra={"gap of true rewards": gap})


CLAIM = Claim(
    name="cdr_gap",
    statement="The log-ratio of a model tuned by DPO over its start ranks two answers to new prompts rightly more often, by more than .1, when the tuning went far than when it has "
    "just begun (with noise on the tuned weights), and more often by more than .1 than the tuned model's own log-probability when the tuning has just begun.",
    source="Xu et al. 2024, CDR, arXiv 2411.02481",
    metric="share of pairs of answers to held-out prompts that are ranked rightly",
    arms={
        "ratio, late, noisy": partial(measure, noise=NOISE),
        "ratio, early, noisy": partial(measure, updates=EARLY, noise=NOISE),
        "ratio, early": partial(measure, updates=EARLY),
        "tuned model alone, early": partial(measure, updates=EARLY, alone=True),
        "equal models": partial(measure, updates=0),
    },
    comparisons=[
        Comparison("ratio, late, noisy", "ratio, early, noisy", "higher", margin=0.1),
        Comparison("ratio, early", "tuned model alone, early", "higher", margin=0.1),
    ],
    controls=[Control("equal models", ("ratio, late, noisy", "ratio, early"))],
    tasks=("linear policies",),
    seeds=8,
    setting=f"{PROMPTS} prompts of {ANSWERS} answers with {FEATURES} normal features each, rewards linear in them, a start with random logits; DPO (beta {BETA}, Adam {RATE}, {BATCH} of {PAIRS} "
    f"noisily labelled pairs an update) on half of the prompts for {EARLY} or {LATE} updates; {HELD} pairs of answers to the other half. Noise: {NOISE} times a normal number on "
    "each of the tuned weights.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
