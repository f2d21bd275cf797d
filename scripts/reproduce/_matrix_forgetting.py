"""Does a language agent that learned sums keep the skill while it learns function calls? Reported beside the matrix, not claimed."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from _claim import REPOSITORY
from _matrix_cells import FAMILIES

CACHE = REPOSITORY / ".cache" / "reproduce" / "matrix" / "forgetting.json"
SEED, EPISODES = 0, 200
EVALUATION_SEED = 1_900_000_000
FORM = {"max_new_tokens": 96, "max_length": 1024}
STEPS = 60_000  # tokens of each training by rewards


def measure(
    seed: int = SEED, episodes: int = EPISODES, imitated: dict[str, Any] | None = None, steps: int = STEPS
) -> dict[str, float]:
    """Teach a model sums, then function calls, and measure it on both after each.

    Sums of two digits are imitated, then trained by rewards; then the same weights imitate function calls and are trained on them.

    Args:
        seed: of the agent.
        episodes: of an evaluation.
        imitated: "sums" and "calls": words of `LanguageAgent.warm_start`; None takes those that `polyathlon train` takes.
        steps: tokens of each training by rewards.

    Returns:
        Mean rewards: "sums before", "sums", "sums after calls", "calls before", "calls".
    """
    import torch

    from polyathlon.adaptation import adapt, make_agent, make_env
    from polyathlon.evaluation import score_agent
    from polyathlon.tuned import tuned_settings

    torch.set_num_threads(1)
    if imitated is None:
        ids = {"sums": FAMILIES["text"].env, "calls": FAMILIES["functions"].env}
        imitated = {name: tuned_settings("language", env).warm_start for name, env in ids.items()}
    sums = adapt(make_env("polyathlon/Reasoning-v0", **FAMILIES["text"].options), "language", **FORM)
    calls = adapt(make_env("polyathlon/FunctionCall-v0"), "language", **FORM)
    agent = make_agent("language", sums, seed=seed, device="cpu")

    def score(env: Any) -> float:
        return score_agent(agent, env, episodes, EVALUATION_SEED).mean

    found = {"sums before": score(sums), "calls before": score(calls)}
    agent.warm_start(**imitated["sums"])
    agent.learn(steps)
    found["sums"] = score(sums)
    agent.set_env(calls)
    agent.warm_start(**imitated["calls"])
    agent.learn(steps, reset_num_timesteps=False)
    return {**found, "calls": score(calls), "sums after calls": score(sums)}


def words_of(found: dict[str, float]) -> str:
    """Return the report in Markdown."""
    kept = found["sums after calls"] / found["sums"] if found["sums"] > 0 else float("nan")
    verdict = "keeps" if kept >= 0.8 else "loses part of" if kept >= 0.4 else "loses"
    return (
        "## One model, two tasks\n\n"
        f"One seed, a report and no claim: a LanguageAgent (`tiny`) that learned sums of two digits (right answers {found['sums before']:.0%} "
        f"before, {found['sums']:.0%} after) and then function calls with the same weights ({found['calls before']:.0%} before, "
        f"{found['calls']:.0%} after) is right in {found['sums after calls']:.0%} of the same sums afterwards: it {verdict} that skill. "
        "Nothing in the agent protects it; who wants both mixes both tasks.\n"
    )


def forgetting(fresh: bool = False) -> dict[str, float]:
    """Measure once and keep the outcome; see `measure`.

    Args:
        fresh: forget the earlier outcome.
    """
    if fresh or not CACHE.exists():
        began = time.process_time()
        found = measure()
        CACHE.parent.mkdir(parents=True, exist_ok=True)
        partial = CACHE.with_suffix(".partial")
        partial.write_text(json.dumps({**found, "seconds": time.process_time() - began}))
        os.replace(partial, CACHE)
    kept: dict[str, float] = json.loads(CACHE.read_text())
    return kept
