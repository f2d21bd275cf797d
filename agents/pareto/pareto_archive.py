"""The policies of a Pareto front with their returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from polyathlon.agents.parts.pareto import crowding_distance, pareto_mask
from polyathlon.envs.errors import UsageError

from .policy_set import Rows


class ParetoArchive:
    """Keeps those policies that no other one dominates, the least crowded ones where they are too many.

    Args:
        num_objectives: m.
        capacity: most policies kept.
        reference: [m] returns that a policy must reach to be kept; while none does, the front of all is kept. None lets all in.

    Attributes:
        returns: [A, m] float64 returns of the policies kept.
        rows: what the policies are, [A, ...] each (see `PolicySet.rows`).
        worst: [m] least returns that any policy given had; NaN before the first.
        version: how often policies were taken in.
    """

    def __init__(self, num_objectives: int, capacity: int, reference: Tensor | None) -> None:
        self.capacity, self.reference = capacity, reference
        self.returns = torch.zeros(0, num_objectives, dtype=torch.float64)
        self.worst = torch.full((num_objectives,), torch.nan, dtype=torch.float64)
        self.rows: Rows = {}
        self.version = 0
        self._selected: set[tuple[float, ...]] = set()

    def __len__(self) -> int:
        return self.returns.shape[0]

    def add(self, rows: Rows, returns: Tensor) -> None:
        """Take policies in, and drop those that are dominated now.

        Args:
            rows: what the policies are, [P, ...] each.
            returns: [P, m] their returns; a policy with a NaN among them is not kept.

        Raises:
            UsageError: no policy is without a NaN.
        """
        returns = returns.detach().double().cpu()
        self.version += 1
        self.worst = torch.fmin(self.worst, returns.min(0).values)
        points = torch.cat([self.returns, returns])
        mask = pareto_mask(points, self.reference)
        if not bool(mask.any()):
            mask = pareto_mask(points)
        if not bool(mask.any()):
            raise UsageError(
                "every policy's return is NaN; look at the rewards of the environment, or at what diverged"
            )
        kept = mask.nonzero()[:, 0]
        if len(kept) > self.capacity:
            distance = crowding_distance(points[kept])
            kept = kept[distance.argsort(descending=True, stable=True)[: self.capacity].sort().values]
        self.returns = points[kept]
        self.rows = {
            name: torch.cat([self.rows[name], new] if self.rows else [new])[kept.to(new.device)]
            for name, new in rows.items()
        }

    def select(self, number: int) -> Tensor:
        """Choose the least crowded policies, first those that were never chosen before; too few are taken again.

        Returns:
            [number] int64, indices of the policies.
        """
        order = crowding_distance(self.returns).argsort(descending=True, stable=True).tolist()
        keys = [tuple(row) for row in self.returns.tolist()]
        order.sort(key=lambda i: keys[i] in self._selected)
        chosen = [order[k % len(order)] for k in range(number)]
        self._selected.update(keys[i] for i in chosen)
        return torch.tensor(chosen)

    def best(self, preference: Tensor) -> int:
        """Return the index of the policy with the largest weighted return for a preference [m]."""
        return int((self.returns @ preference.to(self.returns)).argmax())

    def policy(self, index: Tensor | int) -> Rows:
        """Return policies by index, as rows that a `PolicySet` takes."""
        wanted = torch.as_tensor(index).reshape(-1)
        return {name: value[wanted.to(value.device)] for name, value in self.rows.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return everything as tensors."""
        chosen = torch.tensor(sorted(self._selected), dtype=torch.float64).reshape(-1, self.returns.shape[1])
        return {"returns": self.returns, "worst": self.worst, "selected": chosen, **self.rows}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Become the archive that `state_dict` described."""
        rest = dict(state)
        self.returns, self.worst = (rest.pop(name).cpu() for name in ("returns", "worst"))
        self._selected = {tuple(row) for row in rest.pop("selected").tolist()}
        self.rows = rest
        self.version += 1
