"""GHPO solves problems that GRPO never sees solved, and its hints fade by themselves (B12)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

PROMPTS, PLACES, TOKENS, STEPS = 16, 8, 6, 300


def train(seed: int, task: str, recipe: str, steps: int = STEPS, **options) -> Run:
    """Learn answers of eight tokens, of which one half is easy (.75 a token) and one hard (.3); score the hard half without hints."""
    import torch
    from _tables import followed, iterations, learner

    from polyathlon.envs.language import Hinted
    from polyathlon.envs.probes import TableTask

    inner = TableTask(PROMPTS, PLACES, TOKENS, seed=seed)
    p = torch.where(torch.arange(PROMPTS) < PROMPTS // 2, 0.75, 0.3)
    agent = learner(
        seed, recipe, f"table:{PROMPTS},{PLACES},{TOKENS},prev=0", Hinted(inner, announcement=" ", continues=True), 2.0, PROMPTS,
        start=lambda model, _: model.prefer(torch.as_tensor(inner.targets), p), group_size=8, recipe_kwargs=options or None,
    )  # fmt: skip
    curve: list[tuple[float, float]] = []

    def watch(step: int) -> None:
        if step % 25 == 0:
            curve.append((float(step), float(followed(agent, inner.targets)[PROMPTS // 2 :].mean())))

    iterations(agent, steps, watch)
    right = followed(agent, inner.targets)
    hinted = sum(e.task[1] > 0 for e in agent.collect_episodes()) / (8 * PROMPTS)
    return Run(
        float(right[PROMPTS // 2 :].mean()), curve, {"easy": float(right[: PROMPTS // 2].mean()), "hinted": hinted}
    )


CLAIM = Claim(
    name="ghpo_hints",
    statement="Problems whose answers are never right by chance are learnt with hints for groups that fail (GHPO), and not by GRPO, judged without "
    "hints.",
    source="Liu et al. 2025, GHPO, arXiv 2507.10628",
    metric="probability of the right answer on the hard half, without hints",
    arms={
        "GHPO": partial(train, recipe="ghpo"),
        "GRPO": partial(train, recipe="grpo"),
        "nothing learnt": partial(train, recipe="ghpo", steps=0),
    },
    comparisons=[Comparison("GHPO", "GRPO", "higher", margin=0.3)],
    controls=[Control("nothing learnt", ("GHPO",))],
    tasks=("two difficulties",),
    seeds=8,
    curve="probability of the right answer on the hard half",
    step_label="batches",
    setting=f"{PROMPTS} prompts, {PLACES} places, {TOKENS} tokens, 8 answers, plain gradient descent (2.0) on a table; a hint is a prefix of the answer.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
