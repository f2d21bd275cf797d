"""P3O learns as well where every prompt has a level of rewards of its own, which a critic must learn first (section 2.6)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

PROMPTS, ARMS, SHIFT, UPDATES, BATCH, RATE = 64, 10, 10.0, 100, 64, 0.1


def learn(seed: int, task: str, recipe: str, shift: float, updates: int = UPDATES) -> Run:
    """Learn a table of contextual bandits; score the mean of the rewards without the prompts' levels."""
    import numpy as np
    from _tables import chosen, iterations, learner

    from polyathlon.envs.probes import TableTask

    rng = np.random.default_rng(seed)
    true, level = rng.normal(size=(PROMPTS, ARMS)), rng.normal(size=PROMPTS)
    problem = TableTask(
        PROMPTS, 1, ARMS, score=lambda prompt, tokens: float(true[prompt, tokens[0]] + shift * level[prompt])
    )
    words = {"beta": 0.0, "n_epochs": 2} if recipe == "p3o" else {"n_epochs": 2, "minibatches": 1}
    group = 2 if recipe == "p3o" else 1
    prompts = BATCH // group
    agent = learner(
        seed,
        recipe,
        f"table:{PROMPTS},1,{ARMS}",
        problem,
        RATE,
        prompts,
        adam=True,
        group_size=group,
        recipe_kwargs=words,
    )
    curve: list[tuple[float, float]] = []

    def watch(step: int) -> None:
        if step % 25 == 0:
            curve.append((float(step), float((chosen(agent).numpy() * true).sum(1).mean())))

    iterations(agent, updates, watch)
    return Run(curve[-1][1], curve, {"best": float(true.max(1).mean())})


CLAIM = Claim(
    name="p3o_shift",
    statement="Contextual bandits whose rewards have a level of their own in each prompt, ten times as wide as the differences that count: P3O learns as without the levels, "
    "and more than PPO with a critic.",
    source="Wu et al. 2023, P3O, arXiv 2310.00212",
    metric="mean reward of the policy, without the prompts' levels",
    arms={
        "P3O, levels of 10": partial(learn, recipe="p3o", shift=SHIFT),
        "P3O, no levels": partial(learn, recipe="p3o", shift=0.0),
        "PPO, levels of 10": partial(learn, recipe="ppo", shift=SHIFT),
        "nothing learnt": partial(learn, recipe="p3o", shift=SHIFT, updates=0),
    },
    comparisons=[
        Comparison("P3O, levels of 10", "P3O, no levels", "equal", margin=0.05),
        Comparison("P3O, levels of 10", "PPO, levels of 10", "higher", margin=0.1),
    ],
    controls=[Control("nothing learnt", ("P3O, levels of 10",))],
    tasks=("64 prompts",),
    seeds=8,
    curve="mean reward",
    step_label="updates",
    setting=f"{PROMPTS} prompts with {ARMS} answers of a token, rewards N(0, 1) and a level of {SHIFT:g} N(0, 1) a prompt; {UPDATES} updates of {BATCH} answers, two passes, "
    f"Adam ({RATE}) on a table; P3O without a reference (beta 0), clip .2; PPO with a learnt value of each prompt and whitened advantages.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
