"""DPO recovers a target policy where rejected answers are drawn as the differential information asks, and nowhere else (section 2.3)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

ANSWERS, BETA, PAIRS, BATCH, UPDATES, RATE = 16, 0.5, 6000, 200, 200, 0.05


def learn(seed: int, task: str, chosen: str, rejected: str, updates: int = UPDATES) -> Run:
    """Learn from pairs of two samplers; score the Jensen-Shannon divergence from the target, in nats."""
    import numpy as np
    import torch
    from _pairs import learner, log_probabilities, pair, train

    from polyathlon.agents.parts.differential_information import rejected_sampler

    rng = np.random.default_rng(seed)
    ref, target = (torch.tensor(rng.normal(size=ANSWERS)).log_softmax(0) for _ in range(2))
    of = {"target": target, "reference": ref, "uniform": torch.zeros_like(ref).log_softmax(0)}
    of["rule"] = rejected_sampler(target, ref, BETA, chosen=of[chosen])
    won, lost = (rng.choice(ANSWERS, p=of[name].exp().numpy(), size=PAIRS) for name in (chosen, rejected))
    rows = [pair(int(a), int(b)) for a, b in zip(won, lost, strict=True)]
    agent = learner(seed, "dpo", f"table:1,1,{ANSWERS}", rows, BATCH, RATE, ref.float()[None], beta=BETA)

    def js() -> float:
        log_pi = log_probabilities(agent)[0].double()
        middle = torch.logaddexp(log_pi, target) - torch.tensor(2.0).log()
        return float((log_pi.exp() * (log_pi - middle) + target.exp() * (target - middle)).sum() / 2)

    curve: list[tuple[float, float]] = []
    train(agent, updates, lambda step: curve.append((float(step), js())) if step % 20 == 0 else None)
    return Run(js(), curve)


CLAIM = Claim(
    name="did_samplers",
    statement="With rejected answers drawn by the rule p_chosen (ref / target)^beta DPO comes closer to the target than with rejected answers of the reference or uniform "
    "ones, whether chosen answers are the target's or the reference's.",
    source="Won et al. 2025, Differential Information, arXiv 2505.23761",
    metric="Jensen-Shannon divergence from the target policy, in nats",
    arms={
        "the rule, chosen of the target": partial(learn, chosen="target", rejected="rule"),
        "the rule, chosen of the reference": partial(learn, chosen="reference", rejected="rule"),
        "rejected of the reference": partial(learn, chosen="target", rejected="reference"),
        "rejected uniform": partial(learn, chosen="target", rejected="uniform"),
        "nothing learnt": partial(learn, chosen="target", rejected="rule", updates=0),
    },
    comparisons=[
        Comparison("the rule, chosen of the target", "rejected of the reference", "lower"),
        Comparison("the rule, chosen of the target", "rejected uniform", "lower"),
        Comparison("the rule, chosen of the reference", "rejected of the reference", "lower"),
        Comparison("the rule, chosen of the reference", "rejected uniform", "lower"),
    ],
    controls=[Control("nothing learnt", ("the rule, chosen of the target", "the rule, chosen of the reference"))],
    tasks=("sixteen answers",),
    seeds=8,
    curve="Jensen-Shannon divergence from the target",
    step_label="updates",
    setting=f"{ANSWERS} answers, target and reference softmaxes of normal logits, beta {BETA}; {PAIRS} pairs, {UPDATES} updates of {BATCH}, Adam ({RATE}) on a table that starts at "
    "the reference.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
