"""Preferences over three answers that go in circles, played by tables: the small experiments on games of preferences."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch

GAME = ((0.5, 0.8, 0.1), (0.2, 0.5, 0.9), (0.9, 0.1, 0.5))
CYCLE = ((0.5, 0.9, 0.1), (0.1, 0.5, 0.9), (0.9, 0.1, 0.5))
REFERENCE = (0.6, 0.3, 0.1)
TABLE = "table:1,1,3,prev=0"


def game(prompts: Sequence[Any], a: Sequence[str], b: Sequence[str]) -> list[float]:
    """Judge by `GAME`."""
    return [GAME[int(x)][int(y)] for x, y in zip(a, b, strict=True)]


def cycle(prompts: Sequence[Any], a: Sequence[str], b: Sequence[str]) -> list[float]:
    """Judge by `CYCLE`."""
    return [CYCLE[int(x)][int(y)] for x, y in zip(a, b, strict=True)]


def transitive(prompts: Sequence[Any], a: Sequence[str], b: Sequence[str]) -> list[float]:
    """Judge by the scores that fit `GAME` best."""
    r = torch.tensor(bradley_terry(GAME))
    return (r[[int(x) for x in a]] - r[[int(y) for y in b]]).sigmoid().tolist()  # type: ignore[no-any-return]


def player(
    seed: int, recipe: str, rate: float, prompts: int, adam: bool = False, score: Any = None, **words: Any
) -> Any:
    """Make an agent on a table that begins at `REFERENCE`; see `_tables.learner`."""
    from _tables import learner

    from polyathlon.envs.probes import TableTask

    def begin(model: Any, _: torch.Generator) -> None:
        model.z.data[0, 0, 0] = torch.tensor(REFERENCE).log()

    task = TableTask(1, 1, 3, score=score)
    return learner(seed, recipe, TABLE, task, rate, prompts, begin, adam, room=1, recipe_kwargs=words)


def policy(agent: Any) -> torch.Tensor:
    """Return the exact probabilities [3] of the answers, in float64."""
    found: torch.Tensor = agent.policy.language_model.z.detach()[0, 0, 0].double().softmax(0)
    return found


def update(agent: Any) -> None:
    """Make one update."""
    agent._episodes = agent.collect_episodes()
    agent.train()


def begin(agent: Any) -> Any:
    """Prepare an agent for updates one by one."""
    agent._setup_learn(1)
    agent._before_training()
    return agent


def worst_case(pi: torch.Tensor, preference: Sequence[Sequence[float]]) -> float:
    """Return how likely the best answer to a policy beats it."""
    return float((torch.tensor(preference, dtype=torch.float64) @ pi).max())


@functools.cache
def bradley_terry(preference: tuple[tuple[float, ...], ...]) -> list[float]:
    """Return the scores [3] that fit the preferences of pairs drawn from `REFERENCE` best, P(i > j) = sigmoid(r_i - r_j)."""
    wins, mu = torch.tensor(preference, dtype=torch.float64), torch.tensor(REFERENCE, dtype=torch.float64)
    r = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([r], max_iter=200, tolerance_grad=1e-12)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        gap = r[:, None] - r[None]
        loss = -(mu[:, None] * mu[None] * wins * torch.nn.functional.logsigmoid(gap)).sum() + 1e-9 * r.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    found: list[float] = (r - r.mean()).tolist()
    return found
