"""The best known play of each family, on the same episodes as the agents': solvers, reference answers, scripted players."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from _claim import REPOSITORY
from _matrix_cells import FAMILIES, Family
from _matrix_run import EVALUATION_SEED

from polyathlon.wrappers.demonstrators import demonstrator, demonstrator_words

CACHE = REPOSITORY / ".cache" / "reproduce" / "matrix" / "best.json"


def _measured(family: Family) -> tuple[float, str]:
    import gymnasium as gym

    env = gym.make(family.env, **family.options)
    try:
        returns = [_play(env, EVALUATION_SEED + i) for i in range(min(family.episodes, 300))]
        return float(np.mean(returns)), demonstrator_words(env)
    finally:
        env.close()


def _play(env: Any, seed: int) -> float:
    player = demonstrator(env)
    observation, info = env.reset(seed=seed)
    told, total, over = dict(info), 0.0, False
    while not over:
        observation, reward, terminated, truncated, info = env.step(player(env, observation, told))
        told, total, over = {**told, **info}, total + float(reward), terminated or truncated
    return total


def best_known(families: Iterable[str]) -> dict[str, tuple[float, str]]:
    """Return the mean return of the best known play of families and who plays it; measured once and kept.

    A family whose extra is not installed is left out.
    """
    kept = json.loads(CACHE.read_text()) if CACHE.exists() else {}
    found = {}
    for name in sorted(families):
        family = FAMILIES[name]
        key = f"{name} {family.env} {json.dumps(dict(family.options), sort_keys=True)} {family.episodes} {family.best} with words"
        if key not in kept:
            try:
                kept[key] = _measured(family)
            except ImportError:
                continue
            CACHE.parent.mkdir(parents=True, exist_ok=True)
            CACHE.write_text(json.dumps(kept, indent=1))
        found[name] = (kept[key][0], kept[key][1])
    return found
