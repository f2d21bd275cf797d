"""Which problems an iteration asks: each task once a pass, evenly, those that fail more often, or the easy ones first.

A sampler is a class with `draw(n, source) -> task ids`; `state_dict` keeps what it remembers, and `after`, where there is one, reads
fields once an iteration. It stands in a collector's option: `part("collectors:Groups", prompts=part("prompt_samplers:Prioritized"))`, or,
as on the command line, `prompts="prompt_samplers:Prioritized"`. Tasks come from the task's `task_ids`, or with `pool=` from so many different ones
that the task draws once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from polyathlon.agents.parts.option_types import Fraction, PositiveCount
from polyathlon.envs.errors import UsageError


class Source(Protocol):
    """What a sampler draws from.

    Attributes:
        progress: finished share of training, in [0, 1].
        generator: for its draws.
    """

    progress: float
    generator: Any

    def task_ids(self) -> Sequence[Any]:
        """Return the ids of all tasks."""
        ...

    def drawn(self, n: int) -> list[Any]:
        """Return n tasks, some of them perhaps equal, as the task draws them."""
        ...

    def difficulty(self, task: Any) -> float:
        """Return how difficult a task says that it is."""
        ...


class _Sampler:
    """Tasks to draw from: all of them, or a pool.

    Args:
        pool: number of different tasks, fewer where the task has fewer; None takes all that the task lists.
    """

    def __init__(self, *, pool: PositiveCount | None = None) -> None:
        self.pool = pool
        self.tasks: list[Any] = []

    def ids(self, source: Source) -> Sequence[Any]:
        """Return the tasks; a pool is drawn once."""
        if self.pool is None:
            return source.task_ids()
        if not self.tasks:
            known: dict[str, Any] = {}
            for _ in range(4):  # a task of few problems draws the same ones again
                for task in source.drawn(self.pool):
                    if len(known) < self.pool:
                        known.setdefault(str(task), task)
            self.tasks = list(known.values())
        return self.tasks

    def state_dict(self) -> dict[str, Any]:
        """Return the pool."""
        return {"tasks": list(self.tasks)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with it."""
        self.tasks = list(state["tasks"])


class Evenly(_Sampler):
    """Tasks drawn evenly, none twice in an iteration while there are enough.

    Args:
        pool: number of different tasks; None takes all that the task lists.
    """

    def draw(self, n: int, source: Source) -> list[Any]:
        """Return n tasks."""
        ids = self.ids(source)
        chosen: list[Any] = []
        while len(chosen) < n:
            chosen += [ids[i] for i in _permutation(len(ids), source.generator)[: n - len(chosen)]]
        return chosen


class Every(_Sampler):
    """Every task once, in an order drawn anew for each pass.

    Args:
        pool: number of different tasks; None takes all that the task lists.
    """

    def __init__(self, *, pool: PositiveCount | None = None) -> None:
        super().__init__(pool=pool)
        self.order: list[int] = []

    def draw(self, n: int, source: Source) -> list[Any]:
        """Return the next n tasks."""
        ids = self.ids(source)
        chosen: list[Any] = []
        while len(chosen) < n:
            if not self.order:
                self.order = _permutation(len(ids), source.generator)
            chosen.append(ids[self.order.pop()])
        return chosen

    def state_dict(self) -> dict[str, Any]:
        """Return what is left of the pass."""
        return {**super().state_dict(), "order": list(self.order)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with it."""
        super().load_state_dict(state)
        self.order = list(state["order"])


class Prioritized(_Sampler):
    """Tasks with probability proportional to 1 - s, with s the share of right answers so far (Kimi k1.5, arXiv 2501.12599, section 2.3.3).

    A task without any answer has s = 0. No task is drawn twice in an iteration while there are enough of positive probability.

    Args:
        floor: added to each 1 - s, so that tasks that are always solved are seen again.
        pool: number of different tasks; None takes all that the task lists.
    """

    def __init__(self, *, floor: Fraction = 0.0, pool: PositiveCount | None = None) -> None:
        super().__init__(pool=pool)
        self.floor = floor
        self.right: dict[str, float] = {}
        self.asked: dict[str, int] = {}

    def probabilities(self, ids: Sequence[Any]) -> Tensor:
        """Return the probability of each task [M], float64; equal ones where all are always solved."""
        success = [self.right.get(str(i), 0.0) / max(self.asked.get(str(i), 0), 1) for i in ids]
        weight = 1 - torch.tensor(success, dtype=torch.float64) + self.floor
        return weight / weight.sum() if bool((weight > 0).any()) else torch.full_like(weight, 1 / len(ids))

    def draw(self, n: int, source: Source) -> list[Any]:
        """Return n tasks."""
        ids = self.ids(source)
        p = self.probabilities(ids)
        noise = _uniform(len(ids), source.generator)
        if int((p > 0).sum()) >= n:
            # the n largest of log p + Gumbel noise are a sample without replacement
            keys = p.log() - (-noise.log()).log()
            return [ids[i] for i in keys.topk(n).indices.tolist()]
        sums = p.cumsum(0)
        places = torch.searchsorted(sums, _uniform(n, source.generator) * sums[-1], right=True)
        return [ids[i] for i in places.clamp(max=len(ids) - 1).tolist()]

    def after(self, task: Sequence[Any], correct: Tensor) -> None:
        """Count right answers; those without a verdict are left out."""
        for name, right in zip(map(str, task), correct.tolist(), strict=True):
            if right == right:
                self.right[name] = self.right.get(name, 0.0) + right
                self.asked[name] = self.asked.get(name, 0) + 1

    def state_dict(self) -> dict[str, Any]:
        """Return the counts."""
        return {**super().state_dict(), "right": dict(self.right), "asked": dict(self.asked)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with them."""
        super().load_state_dict(state)
        self.right, self.asked = dict(state["right"]), dict(state["asked"])


class Curriculum(_Sampler):
    """Easy tasks first: a share of all, sorted by the task's `difficulty(id)`, that grows linearly to all of them.

    Args:
        begin: the share at the start.
        until: progress at which all tasks are in.
        pool: number of different tasks; None takes all that the task lists.
    """

    def __init__(self, *, begin: Fraction = 0.25, until: Fraction = 0.5, pool: PositiveCount | None = None) -> None:
        super().__init__(pool=pool)
        if not begin > 0:
            raise UsageError(f"begin of a curriculum is the share of tasks at the start, above 0; got {begin!r}")
        self.begin, self.until = begin, until

    def draw(self, n: int, source: Source) -> list[Any]:
        """Return n tasks, drawn evenly from the easy ones of now."""
        ids = sorted(self.ids(source), key=source.difficulty)
        grown = 1.0 if source.progress >= self.until else source.progress / self.until
        count = max(1, round((self.begin + (1 - self.begin) * grown) * len(ids)))
        return [ids[int(x * count)] for x in _uniform(n, source.generator).tolist()]


def _uniform(n: int, generator: Any) -> Tensor:
    """Return n numbers in (0, 1), float64, on the CPU."""
    drawn = torch.rand(n, dtype=torch.float64, generator=generator, device=generator.device).cpu()
    return drawn.clamp(min=torch.finfo(torch.float64).tiny, max=1 - torch.finfo(torch.float64).eps)


def _permutation(n: int, generator: Any) -> list[int]:
    order: list[int] = torch.randperm(n, generator=generator, device=generator.device).tolist()
    return order
