"""Pairs of a model's own answers to sums: dpo, rpo, copg and hypo against imitation of the chosen answers (Pref-FT)."""

from __future__ import annotations

import json
import sys
import tempfile
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _claim import Claim, Comparison, Control, Run, main

SUMS = {"task": "chain_sum", "config": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}}
IMITATED, IMITATION_EPOCHS = 1024, 10
PAIRS, PROBLEMS, ANSWERS, BATCH = 2000, 4500, 8, 32
FRESH, ASKED = 10_000_000, 400
RATE, IMITATION_RATE = 3e-4, 1e-3
ROWS: dict[str, dict[str, Any]] = {
    "pref_ft": {},
    "dpo": {"beta": 0.1},
    "rpo": {"beta": 0.1, "eta": 0.2, "convention": "token-mean"},
    "copg": {"beta": 0.1},
    "hypo": {"beta": 0.1, "lam": 0.05},
}


def sums(model: str, **options: Any) -> Any:
    """Return chain_sum in a model's tokens."""
    import gymnasium as gym

    import polyathlon  # noqa: F401  registers the ids
    from polyathlon.wrappers import TokenAction

    task = gym.make("polyathlon/Reasoning-v0", **SUMS, **options)
    return TokenAction(task, model=model, max_new_tokens=4, max_length=96)


@lru_cache(maxsize=1)
def started(seed: int) -> tuple[Any, Path, list[dict[str, Any]]]:
    """Let "tiny" imitate, and record pairs of its own answers by the task's verdict; the arms of a seed share this.

    Returns:
        The folder that holds the model while it lives, the model's, and the pairs.
    """
    from polyathlon.agents import LanguageAgent
    from polyathlon.records import record_pairs

    place = tempfile.TemporaryDirectory()
    folder = Path(place.name)
    agent = LanguageAgent("tiny", sums("tiny"), recipe="sft", seed=seed, device="cpu")
    agent.warm_start(n=IMITATED, epochs=IMITATION_EPOCHS, learning_rate=4e-3)
    agent.save_pretrained(folder / "start")
    file = folder / "pairs.jsonl"
    record_pairs(agent, sums("tiny"), file, problems=PROBLEMS, answers=ANSWERS, seed=seed * PROBLEMS)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    if len(rows) < PAIRS:
        raise RuntimeError(f"seed {seed}: {PROBLEMS} problems made {len(rows)} pairs, fewer than {PAIRS}")
    return place, folder / "start", rows[:PAIRS]


def share_right(agent: Any, model: str, seed: int) -> float:
    """Return the share of right answers, one sampled answer to each of fresh problems."""
    from polyathlon.evaluation import score_agent

    env = sums(model, first=FRESH + seed * ASKED, size=ASKED)
    return score_agent(agent, env, ASKED, seed).mean


def learn(seed: int, task: str, recipe: str = "", shuffled: bool = False) -> Run:
    """Learn from the pairs once, and score fresh problems; without a recipe score the start."""
    import numpy as np

    from polyathlon.agents import LanguageAgent

    _, folder, rows = started(seed)
    words: dict[str, Any] = {"recipe": "sft"}
    if recipe:
        if shuffled:
            turned = np.random.default_rng((seed, 1)).integers(2, size=len(rows)).astype(bool)
            rows = [
                {**row, "chosen": row["rejected"], "rejected": row["chosen"]} if is_turned else row
                for row, is_turned in zip(rows, turned, strict=True)
            ]
        rate = IMITATION_RATE if recipe == "pref_ft" else RATE
        words = {"recipe": recipe, "data": rows, "holdout": 0.0, "num_prompts": BATCH, "learning_rate": rate, "recipe_kwargs": ROWS[recipe]}  # fmt: skip
    agent = LanguageAgent(str(folder), sums(str(folder)), seed=seed, device="cpu", **words)
    for _ in range(PAIRS // BATCH if recipe else 0):
        agent.learn(1, log_interval=None, reset_num_timesteps=False)
    return Run(share_right(agent, str(folder), seed))


CLAIM = Claim(
    name="sums_from_pairs",
    statement="From 2,000 pairs of a warm-started model's own answers to sums, one pass of dpo, rpo, copg and hypo each leaves more answers to fresh problems right than imitation of the "
    "chosen answers does.",
    source="Rafailov et al. 2023, DPO, arXiv 2305.18290; RPO, arXiv 2405.16436; CoPG, arXiv 2406.19185; HyPO, arXiv 2406.01462",
    metric="share of right answers to fresh problems, one sampled answer each",
    arms={
        "start": learn,
        "Pref-FT": partial(learn, recipe="pref_ft"),
        "DPO": partial(learn, recipe="dpo"),
        "RPO": partial(learn, recipe="rpo"),
        "CoPG": partial(learn, recipe="copg"),
        "HyPO": partial(learn, recipe="hypo"),
        "DPO, half of the pairs turned round": partial(learn, recipe="dpo", shuffled=True),
    },
    comparisons=[Comparison(name, "Pref-FT", "higher") for name in ("DPO", "RPO", "CoPG", "HyPO")],
    controls=[Control("DPO, half of the pairs turned round", ("DPO", "RPO", "CoPG", "HyPO"))],
    tasks=("chain_sum",),
    seeds=8,
    setting=f"Sums and differences of two one-digit numbers (chain_sum). Start: the model tiny after {IMITATION_EPOCHS} passes over {IMITATED} right answers. Pairs: the best and the worst of {ANSWERS} sampled answers of "
    f"it to a problem, by the verdict; the first {PAIRS}. {PAIRS // BATCH} updates of {BATCH} pairs, Adam ({RATE:g}; Pref-FT {IMITATION_RATE:g}). dpo beta .1; rpo beta .1, eta .2, token-mean; copg beta .1, the verdicts "
    f"as scores; hypo beta .1, lambda .05, two fresh answers a prompt. {ASKED} fresh problems; they have other numbers than the recorded ones, but there are few different sums. Control: a random half of the pairs turned round.",
)

if __name__ == "__main__":
    sys.exit(main(CLAIM))
