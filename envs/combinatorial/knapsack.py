"""The knapsack problem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from polyathlon.envs import random
from polyathlon.envs.errors import check_choice, check_positive, check_positive_int

from .construction import TOLERANCE, ConstructionTask, Move, State
from .instances import INSTANCE_STREAM, Instance, plain_instance
from .reading import check_count, entries, make_instance, numbers, read_amount, read_column, read_reference, to_unit


def _uniform(keys: Tensor, num_items: int, dtype: torch.dtype) -> Tensor:
    """Values and weights uniform in [0, 1) (Kool et al. 2019; Jumanji)."""
    return random.uniform(keys, 0, (num_items, 2), dtype, stream=INSTANCE_STREAM)


def _integers(keys: Tensor, num_items: int, dtype: torch.dtype) -> Tensor:
    """Values and weights thousandths from 1 to 998 (Drakulic et al. 2023)."""
    return random.integers(keys, 0, 1, 999, (num_items, 2), stream=INSTANCE_STREAM).to(dtype) / 1000.0


DISTRIBUTIONS: dict[str, Callable[[Tensor, int, torch.dtype], Tensor]] = {"uniform": _uniform, "integers": _integers}
_MOST_CAPACITY = 25.0


class Knapsack(ConstructionTask):
    """Pack the most valuable items into a knapsack of limited capacity.

    ## Description
    n items have a value and a weight. Each step packs one that still fits.

    With `mdp="bq"` (the default) a state is only what remains: the items that are left and the capacity that is left
    (BQ-NCO, Drakulic et al. 2023). With `mdp="direct"` all items stay in their rows and are marked as packed. Both have
    the same solutions and rewards.

    ## Action Space
    `Discrete(n)`: the row of the item to pack; `info["action_mask"]` tells which ones fit (up to 1e-6). With "bq" the
    items that are left stand in the first rows in no particular order; with "direct" the row is the number of the item.
    `info["orig"]` gives the number of the item in each row, -1 in padding.

    ## Observation Space
    | name | shape, type | meaning | range |
    |---|---|---|---|
    | nodes | (n, 2) float32 | value, weight; 0 in padding ("bq") | [0, 1] |
    | kind | (n,) int8 | 0 padding or packed, 3 open | 0, 3 |
    | globals | (2,) float32 | items left / n, capacity left | [0, 1], [0, n] |
    | visited | (n,) int8 | only "direct": packed or padding | 0, 1 |

    ## Rewards
    "dense": the value of the item; "sparse": the sum of the values at the end, 0 before. An action that is not allowed
    ends the episode with 0 (Jumanji's value).

    ## Starting State
    Values and weights drawn from `distribution`; or `reset(options={"instance": {"value": (m,), "weight": (m,),
    "capacity": c}, "reference": cost})`, each entry with a leading axis B in a vector environment if rows differ;
    1 <= m <= n. Values above 1, and weights above 1 together with the capacity, are observed divided by the largest;
    rewards and costs keep the instance's own units.

    ## Episode End
    No item fits any more. Where that is so at the start, every action is allowed, does nothing and ends the episode with
    0. `info["solution"]` lists the items packed so far, -1 behind them; `info["cost"]` is minus their value, in
    float64, and `info["gap"]` at the end (cost - reference) / |reference| (infinite before, and where no reference is
    known).

    ## Arguments
    * `num_items`: number of items n, at least 1.
    * `capacity`: of the knapsack; None for min(n / 4, 25), which is that of the literature for n = 50, 100 and 200.
    * `mdp`: "bq" or "direct".
    * `reward`: "dense" or "sparse".
    * `distribution`: "uniform" in [0, 1), or "integers": thousandths from 1 to 998.

    ## Version History
    * v0: first version.
    """

    features: ClassVar[tuple[str, ...]] = ("value", "weight")
    has_route: ClassVar[bool] = False
    size_name: ClassVar[str] = "num_items"

    def __init__(
        self,
        *,
        num_items: int = 50,
        capacity: float | None = None,
        mdp: str = "bq",
        reward: str = "dense",
        distribution: str = "uniform",
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        """Make the task; see the class for the arguments.

        Raises:
            UsageError: a number is outside its range, or a name is unknown.
        """
        check_positive_int(num_items=num_items)
        self.num_items = int(num_items)
        given = min(self.num_items / 4.0, _MOST_CAPACITY) if capacity is None else capacity
        check_positive(capacity=given)
        self.capacity = float(given)
        check_choice("distribution", distribution, DISTRIBUTIONS)
        self.distribution = distribution
        super().__init__(self.num_items, mdp, reward, device, dtype)

    def amount_limit(self) -> float:
        """Return n: no weight exceeds 1, so a larger capacity means nothing more."""
        return float(self.num_items)

    def generate(self, keys: Tensor) -> Instance:
        """Draw one instance for each key, [B, 2] int64; equal keys give equal instances."""
        nodes = DISTRIBUTIONS[self.distribution](keys, self.num_points, self.dtype)
        return plain_instance(keys, nodes, min(self.capacity, self.amount_limit()))

    def read(self, given: Any, rows: int, reference: Any) -> Instance:
        """Make instances of a dict; see the class.

        Raises:
            UsageError: the instance is malformed.
        """
        given = entries(given, ("value", "weight", "capacity"), "{'value': (m,), 'weight': (m,), 'capacity': c}")
        count = (0, *numbers(given["value"], "value").shape)[-1]
        check_count(count, 1, self.num_items, "items", "num_items")
        value, scale = to_unit(read_column(given["value"], "value", rows, count))
        weight, unit = to_unit(read_column(given["weight"], "weight", rows, count))
        capacity = np.minimum(read_amount(given["capacity"], "capacity", rows) / unit, self.amount_limit())
        known = read_reference(given.get("reference") if reference is None else reference, rows, is_gain=True)
        columns = np.stack([value, weight], axis=2)
        return make_instance(columns, self.num_points, self.dtype, self.device, scale, known, capacity)

    def plain(self, instance: Instance, i: int) -> dict[str, Any]:
        """Return instance i as a dict with "value", "weight" and "capacity"."""
        nodes, scale = self._plain_nodes(instance, i)
        return {"value": nodes[:, 0] * scale, "weight": nodes[:, 1], "capacity": float(instance.amount[i])}

    def first_allowed(self, rows: Any, instance: Instance) -> tuple[Tensor, Tensor]:
        """Return the allowed rows [B, R] bool, and whether there is none, [B] bool."""
        return self._allowed(rows, instance, instance.amount)

    def _allowed(self, rows: Any, instance: Instance, amount: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.table.nodes(rows, instance)[..., 1]
        fits = weight <= (amount + TOLERANCE).to(weight.dtype).unsqueeze(1)
        return self.all_if_none(fits.logical_and_(self.table.is_open(rows)))

    def move(self, state: State, action: Tensor) -> Move:
        """Pack an item; where nothing fits, do nothing."""
        table, instance, is_stuck = self.table, state.instance, state.is_over
        rows, picked, _ = table.take(state.rows, instance, action, is_kept=is_stuck)
        gain, weight = torch.where(is_stuck.unsqueeze(1), 0.0, picked.double()).unbind(1)
        amount = state.amount - weight
        allowed, is_over = self._allowed(rows, instance, amount)
        return Move(rows, amount, allowed, is_over, -gain * instance.scale)

    def illegal_reward(self, state: State) -> Tensor:
        """Return [B] float32: the reward of an action that is not allowed, 0."""
        return torch.zeros_like(state.cost, dtype=torch.float32)

    def render(self, state: State, i: int) -> np.ndarray:
        """Draw the items of row i, the packed ones in colour, as [H, W, 3] uint8."""
        from .pictures import draw_items

        packed = np.array(self._row_solution(state, i), dtype=np.int64)
        value, weight = state.instance.nodes[i, : int(state.instance.size[i])].cpu().numpy().T
        left, total = float(state.amount[i]), float(state.instance.amount[i])
        title = f"{len(packed)} items, value {-float(state.cost[i]):.3f}, capacity left {left:.3f} of {total:.3f}"
        return draw_items(value, weight, packed, title)
