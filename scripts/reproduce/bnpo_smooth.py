"""BNPO's gradients change less from batch to batch than GRPO's (B1)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main, other_draws

PROMPTS, ARMS, STEPS = 64, 16, 100


def train(seed: int, task: str, recipe: str, steps: int = STEPS) -> Run:
    """Success sigmoid(N(-1, 2)) a prompt at first; score mean |g_k - g_(k-1)| / mean g of the gradient's norms g."""
    import torch
    from _tables import chosen, iterations, learner

    from polyathlon.envs.probes import TableTask

    problem = TableTask(PROMPTS, 1, ARMS, seed=seed)
    targets = torch.as_tensor(problem.targets)

    def start(model, draws) -> None:
        model.prefer(targets, (-1 + 2 * torch.randn(PROMPTS, generator=draws)).sigmoid().clamp(1e-4, 1 - 1e-4))

    words = {"aggregation": "seq-mean-token-sum"}
    agent = learner(
        seed,
        recipe,
        f"table:{PROMPTS},1,{ARMS}",
        problem,
        1.0,
        PROMPTS,
        start=start,
        group_size=16,
        recipe_kwargs=words,
    )
    norms: list[float] = []
    step = agent.policy.optimizer.step

    def watched(*args, **kwargs):
        norms.append(float(agent.policy.language_model.z.grad.norm()))
        return step(*args, **kwargs)

    agent.policy.optimizer.step = watched
    iterations(agent, steps)
    found = torch.tensor(norms)
    return Run(
        float(found.diff().abs().mean() / found.mean()), [], {"success": float(chosen(agent).gather(1, targets).mean())}
    )


CLAIM = Claim(
    name="bnpo_smooth",
    statement="The norm of BNPO's gradient changes less from batch to batch, in units of its mean, than GRPO's and than that of a mean baseline.",
    source="Xiao et al. 2025, BNPO, arXiv 2506.02864",
    metric="mean change of the gradient's norm over its mean",
    arms={
        "BNPO": partial(train, recipe="bnpo"),
        "GRPO": partial(train, recipe="grpo"),
        "mean baseline": partial(train, recipe="dr_grpo"),
        "GRPO, other draws": other_draws(partial(train, recipe="grpo")),
    },
    comparisons=[Comparison("BNPO", "GRPO", "lower", margin=0.02), Comparison("BNPO", "mean baseline", "lower")],
    controls=[Control("GRPO, other draws", ("BNPO",))],
    tasks=("many difficulties",),
    seeds=8,
    setting=f"{PROMPTS} prompts, {ARMS} arms, 16 answers, plain gradient descent (1.0) on a table, {STEPS} batches.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
