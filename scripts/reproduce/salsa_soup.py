"""PPO near the average of two fine-tuned models ends with a higher reward than near one of them (section 2.12)."""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

PROMPTS, ARMS, DEMOS, RIGHT, UPDATES, BATCH, RATE = 48, 20, 120, 0.8, 60, 64, 0.05
SFT_UPDATES, SFT_RATE = 25, 0.15
COEFFICIENTS = (0.05, 0.2, 0.5)
TABLE = f"table:{PROMPTS},1,{ARMS}"


def fine_tuned(seed: int, number: int, best: Any, folder: str) -> Any:
    """Imitate demonstrations of their own, from the same uniform ancestor; return the agent and its file."""
    import numpy as np
    from _pairs import learner, train

    rng = np.random.default_rng((seed, number))
    rows = []
    for prompt in rng.integers(PROMPTS, size=DEMOS):
        arm = best[prompt] if rng.random() < RIGHT else rng.integers(ARMS)
        rows.append({"prompt": f"p{prompt}", "completion": str(arm)})
    agent = learner(seed, "pref_ft", TABLE, rows, 50, SFT_RATE)
    train(agent, SFT_UPDATES)
    agent.save(f"{folder}/sft{number}.zip")
    return agent, f"{folder}/sft{number}.zip"


def learn(seed: int, task: str, beta: float, soup: str) -> Run:
    """Learn from the first fine-tuned model, near a reference; score the mean reward of the policy."""
    import numpy as np
    from _tables import chosen, iterations, learner

    from polyathlon.envs.probes import TableTask

    reward = np.random.default_rng(seed).random((PROMPTS, ARMS))
    problem = TableTask(PROMPTS, 1, ARMS, score=lambda prompt, tokens: float(reward[prompt, tokens[0]]))
    curve: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        made = [fine_tuned(seed, k, reward.argmax(1), folder) for k in range(2)]
        first = made[0][0].policy.language_model.z.detach().clone()
        files = {"both": [made[0][1], made[1][1]], "one": [made[0][1]] * 2}.get(soup)
        words: dict[str, Any] = {"recipe_kwargs": {"rewards.1.beta": beta, "n_epochs": 2, "minibatches": 1}}
        words |= {"side_models": {"reference": files}} if files else {}
        agent = learner(
            seed, "salsa" if files else "rlhf_ppo", TABLE, problem, RATE, BATCH, adam=True, group_size=1,
            start=lambda model, _: model.z.data.copy_(first), **words,
        )  # fmt: skip

        def watch(step: int) -> None:
            if step % 20 == 0:
                curve.append((float(step), float((chosen(agent).numpy() * reward).sum(1).mean())))

        iterations(agent, UPDATES, watch)
    return Run(curve[-1][1], curve)


CLAIM = Claim(
    name="salsa_soup",
    statement="Two tables that imitated 120 demonstrations each: PPO near their average ends with a higher reward than PPO near the first of them, at each of three prices of the "
    "divergence.",
    source="Chegini et al. 2024, SALSA, arXiv 2411.01798",
    metric="mean reward of the policy, in [0, 1]",
    arms={
        **{f"SALSA, {b:g}": partial(learn, beta=b, soup="both") for b in COEFFICIENTS},
        **{f"PPO, {b:g}": partial(learn, beta=b, soup="none") for b in COEFFICIENTS},
        **{f"soup of one model, {b:g}": partial(learn, beta=b, soup="one") for b in COEFFICIENTS},
    },
    comparisons=[Comparison(f"SALSA, {b:g}", f"PPO, {b:g}", "higher") for b in COEFFICIENTS],
    controls=[Control(f"soup of one model, {b:g}", (f"SALSA, {b:g}",)) for b in COEFFICIENTS],
    tasks=("contextual bandit",),
    seeds=8,
    curve="mean reward",
    step_label="updates",
    setting=f"{PROMPTS} prompts with {ARMS} answers of a token, rewards uniform in [0, 1]; demonstrations are the best answer with P = {RIGHT}; {SFT_UPDATES} updates of imitation; then "
    f"{UPDATES} updates of {BATCH} answers, Adam ({RATE}), two passes.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
