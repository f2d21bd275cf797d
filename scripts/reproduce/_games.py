"""What the claims about games share: leagues, bounds as arms, and how an agent that does not learn is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from _claim import Run


def bound(of_task: Mapping[str, float] | float) -> Callable[[int, str], Run]:
    """Return an arm whose score is the same number in every seed: what a claim promises to stay on one side of."""

    def arm(seed: int, task: str) -> Run:
        return Run(of_task if isinstance(of_task, float) else of_task[task])

    return arm


def league(game: Any, seed: int, steps: int, *, is_learning: bool = True, **words: Any) -> Any:
    """Train a league of PPO on one thread.

    Args:
        game: see `SelfPlay`.
        seed: of everything random.
        steps: ticks.
        is_learning: False leaves out every update: the pool is of copies of the untrained agent.
        **words: of `SelfPlay` and PPO.
    """
    import torch

    from polyathlon.agents import PPO, SelfPlay

    torch.set_num_threads(1)
    one = SelfPlay(PPO, game, seed=seed, device="cpu", **words)
    if not is_learning:
        one.agent.train = lambda: one.agent.rollout.clear()
    return one.learn(steps)


def falling(rate: float) -> Callable[[float], float]:
    """Return a learning rate that falls to 0 over the run."""
    return lambda remaining: rate * remaining
