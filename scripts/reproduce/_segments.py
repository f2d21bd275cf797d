"""What claims about preferences between segments of control share: recording a controller, and learning from labelled pairs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any


def from_preferences(
    kind: str,
    controlled: Callable[[Any], Any],
    recorded: dict[str, Any],
    *,
    rate: float,
    updates: int,
    bc_steps: int,
    reward_steps: int,
    seed: int,
    **words: Any,
) -> Any:
    """Record a controller, and learn from pairs of its segments that are labelled by regret.

    Args:
        kind: "cpl", "bc" (all updates imitate) or "p_iql".
        controlled: (observations [N, O]) -> actions [N, A].
        recorded: `env`, `episodes`, `dataset_id`, `noise` and further keywords of `polyathlon.datasets.record`.
        rate: the step size.
        updates: gradient steps; of P-IQL those of IQL.
        bc_steps: of them, those of CPL that imitate first.
        reward_steps: of P-IQL's reward model, before.
        seed: of recording and learning.
        **words: of both agents.
    """
    import numpy as np

    from polyathlon.agents import CPL, PIQL
    from polyathlon.datasets import record

    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = folder
        dataset = record(
            lambda obs, mask: controlled(np.asarray(obs)[None])[0].astype(np.float32), seed=seed, **recorded
        )
        words = {
            "dataset": dataset,
            "labels": "regret",
            "policy_kwargs": {"net_arch": [64, 64]},
            "seed": seed,
            "device": "cpu",
            **words,
        }
        if kind == "p_iql":
            agent: Any = PIQL("MlpPolicy", None, rate, reward_steps=reward_steps, **words)
        else:
            agent = CPL("MlpPolicy", None, rate, batch_size=32, bc_steps=updates if kind == "bc" else bc_steps, **words)
        agent.learn(updates + (reward_steps if kind == "p_iql" else 0), log_interval=None)
    return agent
