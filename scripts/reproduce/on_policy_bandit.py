"""Answers that are written anew matter where the data hardly holds what is good, and do not where it does (section 2.13)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

ACTIONS, CONTEXTS, ANSWERS, UPDATES, EVERY, BETA, RATE, GAP = 100, 10, 10, 200, 10, 0.05, 0.05, 0.2
THIN, COMMON, WIDTH = 70, 20, 10  # where rewards peak: there the data has few of its answers, or many
WORDS = {
    "dpo": {"label": "all", "loss": "dpo", "beta": BETA},
    "best": {"label": "best", "loss": "nll", "negative": False},
}


def learn(seed: int, task: str, peak: int, cell: str, every: int | None, is_chance: bool = False) -> Run:
    """Learn from answers of the policy that are refreshed or kept; score its mean reward."""
    import numpy as np
    import torch
    from _tables import learner

    from polyathlon.agents.language.recipes.pref_tune import PrefTune
    from polyathlon.envs.probes import TableTask

    drawn = np.tanh(-0.7 + 0.4 * np.random.default_rng(0).standard_cauchy(10_000))
    data = np.histogram(drawn, ACTIONS, (-1, 1))[0] + 0.1
    reward = np.exp(-(((np.arange(ACTIONS) - peak) / WIDTH) ** 2))
    coins = np.random.default_rng(seed)

    def paid(prompt: int, tokens: list[int]) -> float:
        return float(coins.random() if is_chance else reward[tokens[0]])

    agent = learner(
        seed,
        PrefTune("policy", every=every, n=ANSWERS, **WORDS[cell]).row(),  # type: ignore[arg-type]
        f"table:1,1,{ACTIONS}",
        TableTask(1, 1, ACTIONS, score=paid),
        RATE,
        CONTEXTS,
        adam=True,
        recipe_kwargs={"min_gap": GAP} if cell == "dpo" else {},
    )
    agent.policy.language_model.z.data[:, 0, 0] = torch.tensor(data / data.sum()).log().float()

    def value() -> float:
        z = agent.policy.language_model.z.detach()[:, 0, 0]
        return float((z.softmax(-1) @ torch.tensor(reward, dtype=z.dtype)).mean())

    curve: list[tuple[float, float]] = []
    while agent._n_updates < UPDATES:  # a call makes the updates up to the next answers that are written
        if agent._n_updates >= 2 * EVERY * len(curve):
            curve.append((float(agent._n_updates), value()))
        agent.learn(1, log_interval=None, reset_num_timesteps=False)
    curve.append((float(agent._n_updates), value()))
    return Run(value(), curve)


THIN_DPO, THIN_KEPT = "DPO, answers anew, good ones rare", "DPO, the first answers, good ones rare"
THIN_BEST, THIN_BEST_KEPT = "best of n, answers anew, good ones rare", "best of n, the first answers, good ones rare"
COMMON_BEST, COMMON_KEPT = "best of n, answers anew, good ones common", "best of n, the first answers, good ones common"
CHANCE = "DPO, answers anew, labels by chance"

CLAIM = Claim(
    name="on_policy_bandit",
    statement=f"Where the policy at first hardly gives good answers, answers written anew every {EVERY} updates earn more than the first ones kept, by more than .2, for DPO on all pairs "
    "and for imitation of the best; of kept answers DPO learns more than imitation of the best. Where good answers are common it makes no difference to imitation of the best (within .15).",
    source="Tajwar et al. 2024, arXiv 2404.14367",
    metric="mean reward of the policy, at most 1",
    arms={
        THIN_DPO: partial(learn, peak=THIN, cell="dpo", every=EVERY),
        THIN_KEPT: partial(learn, peak=THIN, cell="dpo", every=None),
        THIN_BEST: partial(learn, peak=THIN, cell="best", every=EVERY),
        THIN_BEST_KEPT: partial(learn, peak=THIN, cell="best", every=None),
        COMMON_BEST: partial(learn, peak=COMMON, cell="best", every=EVERY),
        COMMON_KEPT: partial(learn, peak=COMMON, cell="best", every=None),
        CHANCE: partial(learn, peak=THIN, cell="dpo", every=EVERY, is_chance=True),
    },
    comparisons=[
        Comparison(THIN_DPO, THIN_KEPT, "higher", margin=0.2),
        Comparison(THIN_BEST, THIN_BEST_KEPT, "higher", margin=0.2),
        Comparison(THIN_KEPT, THIN_BEST_KEPT, "higher"),
        Comparison(COMMON_BEST, COMMON_KEPT, "equal", margin=0.15),
    ],
    controls=[Control(CHANCE, (THIN_DPO, THIN_BEST, THIN_KEPT, COMMON_BEST))],
    tasks=("a bandit",),
    seeds=8,
    curve="mean reward",
    step_label="updates",
    setting=f"{CONTEXTS} problems that a table of {ACTIONS} actions tells not apart, which starts at a histogram of tanh(Cauchy(-.7, .4)), rewards exp(-((a - {THIN}) / {WIDTH})^2) or with {COMMON}; {ANSWERS} answers to each "
    f"problem, {UPDATES} updates of all of them, Adam ({RATE}), DPO with beta {BETA} on all pairs whose rewards differ by {GAP}.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
