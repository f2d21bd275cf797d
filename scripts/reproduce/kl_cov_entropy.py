"""KL-Cov and Clip-Cov keep entropy that GRPO loses, at no lower reward (B2)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

PROMPTS, ARMS, STEPS = 64, 64, 200


def train(seed: int, task: str, recipe: str, steps: int = STEPS, metric: str = "entropy", **options) -> Run:
    """An easy arm (.3 at first) pays .5, a rare one (.004) pays 1; score the entropy at the end (and the reward beside it)."""
    import torch
    from _tables import chosen, iterations, learner

    from polyathlon.envs.probes import TableTask

    def score(prompt: int, tokens: list[int]) -> float:
        return {0: 0.5, 1: 1.0}.get(tokens[0], 0.0)

    p = torch.full((ARMS,), (1 - 0.304) / (ARMS - 2))
    p[0], p[1] = 0.3, 0.004

    def start(model, _) -> None:
        model.z[:] = p.log()

    words = {"n_epochs": 4, "dynamic_sampling": 0} | options
    problem = TableTask(PROMPTS, 1, ARMS, score=score)
    agent = learner(
        seed, recipe, f"table:{PROMPTS},1,{ARMS}", problem, 0.3, PROMPTS, start=torch.no_grad()(start), group_size=8, recipe_kwargs=words,
    )  # fmt: skip
    iterations(agent, steps)
    pi = chosen(agent)
    entropy, reward = float(-(pi * pi.log()).sum(1).mean()), float((0.5 * pi[:, 0] + pi[:, 1]).mean())
    return Run(entropy if metric == "entropy" else reward, [], {"entropy": entropy, "reward": reward})


KL, CLIP = {"k_percent": 20.0, "kl_cov_coef": 3.0}, {"ratio": 0.2, "low": 0.5, "high": 50.0}
CLAIM = Claim(
    name="kl_cov_entropy",
    statement="Holding back (KL-Cov) or leaving out (Clip-Cov) the tokens of the largest covariance keeps entropy that GRPO loses; with KL-Cov the reward is not "
    "lower.",
    source="Cui et al. 2025, arXiv 2505.22617",
    metric="entropy in nats; in arms that say so, mean reward",
    arms={
        "KL-Cov": partial(train, recipe="kl_cov", **KL),
        "Clip-Cov": partial(train, recipe="clip_cov", **CLIP),
        "GRPO": partial(train, recipe="grpo", aggregation="token-mean"),
        "KL-Cov, reward": partial(train, recipe="kl_cov", metric="reward", **KL),
        "GRPO, reward": partial(train, recipe="grpo", metric="reward", aggregation="token-mean"),
        "GRPO twice": partial(train, recipe="grpo", aggregation="token-mean"),
        "nothing learnt, reward": partial(train, recipe="kl_cov", metric="reward", steps=0),
    },
    comparisons=[
        Comparison("KL-Cov", "GRPO", "higher", margin=0.05),
        Comparison("Clip-Cov", "GRPO", "higher", margin=0.05),
        Comparison("KL-Cov, reward", "GRPO, reward", "not lower", margin=0.02),
    ],
    controls=[Control("GRPO twice", ("KL-Cov", "Clip-Cov")), Control("nothing learnt, reward", ("KL-Cov, reward",))],
    tasks=("a rare arm",),
    seeds=8,
    setting=f"{PROMPTS} prompts, {ARMS} arms, 8 answers, four steps a batch, plain gradient descent (0.3) on a table, {STEPS} batches; shares of tokens a hundred "
    "times the paper's, as batches are small.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
