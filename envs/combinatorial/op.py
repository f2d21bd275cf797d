"""The orienteering problem."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from polyathlon.envs import random
from polyathlon.envs.errors import check_choice, check_positive, check_positive_int

from .construction import TOLERANCE, ConstructionTask, Move, State, nearest_entry
from .instances import INSTANCE_STREAM, Instance, distribution_named, plain_instance
from .reading import (
    entries,
    make_instance,
    read_amount,
    read_column,
    read_points,
    read_reference,
    to_unit,
    to_unit_square,
)
from .tours import distance

# Kool et al. 2019: customers -> length of a tour
LENGTHS = {20: 2.0, 50: 3.0, 100: 4.0}


def _distance_prizes(keys: Tensor, xy: Tensor) -> Tensor:
    """Farther is worth more: (1 + floor(99 d / max d)) / 100 (Fischetti et al. 1998)."""
    far = distance(xy, xy[:, :1])
    largest = far.amax(1, keepdim=True).clamp(min=1e-12)
    return (1.0 + torch.floor(99.0 * far / largest)) / 100.0


def _uniform_prizes(keys: Tensor, xy: Tensor) -> Tensor:
    """Hundredths from 1 to 100."""
    return random.integers(keys, 3, 1, 101, xy.shape[1:2], stream=INSTANCE_STREAM).to(xy.dtype) / 100.0


def _constant_prizes(keys: Tensor, xy: Tensor) -> Tensor:
    """All worth 1."""
    return torch.ones_like(xy[..., 0])


PRIZES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "distance": _distance_prizes,
    "uniform": _uniform_prizes,
    "constant": _constant_prizes,
}


class OP(ConstructionTask):
    """Collect as much as possible on a tour of limited length that starts and ends at a depot (orienteering).

    ## Description
    n nodes with prizes and a depot lie in the unit square. Each step goes on to a node from which the depot can still be
    reached within the length allowed. The way home is never an action: it is added at the end.

    With `mdp="bq"` (the default) a state is only what remains: where the tour stands (origin), the depot, the open nodes
    and the length that is left (BQ-NCO, Drakulic et al. 2023). With `mdp="direct"` all nodes stay in their rows and are
    marked as visited. Both have the same solutions and rewards.

    ## Action Space
    `Discrete(R)`: the row of the table to go to next; `info["action_mask"]` tells which rows are within reach (up to
    1e-6). R = n + 2 rows with "bq" (origin, depot, open nodes in no particular order), R = n + 1 with "direct" (row =
    number of the node, the depot is 0). `info["orig"]` gives the number of the node in each row, -1 in padding.

    ## Observation Space
    | name | shape, type | meaning | range |
    |---|---|---|---|
    | nodes | (R, 3) float32 | x, y, prize; 0 in padding ("bq") | [0, 1] |
    | kind | (R,) int8 | 0 padding or visited, 1 origin, 2 depot, 3 open | 0..3 |
    | globals | (2,) float32 | open nodes / n, length left | [0, 1], [0, (n + 1) sqrt 2] |
    | visited | (R,) int8 | only "direct": visited or padding | 0, 1 |
    | first, last | (1,) int64 | only "direct": depot and latest node of the tour | 0..n |

    ## Rewards
    "dense": the prize of the node; "sparse": the sum of the prizes at the end, 0 before. An action that is not allowed
    ends the episode with 0.

    ## Starting State
    Nodes drawn from `distribution` and prizes by `prize`; or `reset(options={"instance": {"xy": (m + 1, 2), depot first,
    "prize": (m,), "max_length": l}, "reference": cost})`, each entry with a leading axis B in a vector environment if
    rows differ; 1 <= m <= n. What leaves the unit square is observed shifted and scaled into it, prizes above 1 divided
    by the largest; rewards and costs keep the instance's own units.

    ## Episode End
    No open node is within reach. Where that is so at the start, because the length allowed is too short to leave the
    depot, every action is allowed, does nothing and ends the episode with 0. `info["solution"]` is the tour so far from
    node 0, -1 behind it; `info["cost"]` minus the prizes collected, in float64, and `info["gap"]` at the end (cost -
    reference) / |reference| (infinite before, and where no reference is known).

    ## Arguments
    * `num_nodes`: number of nodes n, without the depot, at least 1.
    * `max_length`: length allowed; None for that of the number of nodes nearest to n in the literature.
    * `prize`: "distance" (farther is worth more), "uniform" or "constant".
    * `mdp`: "bq" or "direct".
    * `reward`: "dense" or "sparse".
    * `distribution`: "uniform", or "clusters" (around five centres).

    ## Version History
    * v0: first version.
    """

    features: ClassVar[tuple[str, ...]] = ("x", "y", "prize")

    def __init__(
        self,
        *,
        num_nodes: int = 50,
        max_length: float | None = None,
        prize: str = "distance",
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
        check_positive_int(num_nodes=num_nodes)
        self.num_nodes = int(num_nodes)
        given = nearest_entry(LENGTHS, self.num_nodes) if max_length is None else max_length
        check_positive(max_length=given)
        self.max_length = float(given)
        check_choice("prize", prize, PRIZES)
        distribution_named(distribution)
        self.prize = prize
        self.distribution = distribution
        super().__init__(self.num_nodes + 1, mdp, reward, device, dtype)

    def amount_limit(self) -> float:
        """Return (n + 1) sqrt(2), a bound of the longest tour; a longer length allowed means nothing more."""
        return self.num_points * math.sqrt(2.0)

    def generate(self, keys: Tensor) -> Instance:
        """Draw one instance for each key, [B, 2] int64; equal keys give equal instances."""
        xy = distribution_named(self.distribution)(keys, self.num_points, self.dtype)
        prize = PRIZES[self.prize](keys, xy)
        prize[:, 0] = 0.0
        length = min(self.max_length, self.amount_limit())
        return plain_instance(keys, torch.cat([xy, prize.unsqueeze(2)], dim=2), length)

    def read(self, given: Any, rows: int, reference: Any) -> Instance:
        """Make instances of a dict; see the class.

        Raises:
            UsageError: the instance is malformed.
        """
        given = entries(given, ("xy", "prize", "max_length"), "{'xy': (m + 1, 2), 'prize': (m,), 'max_length': l}")
        points, side = to_unit_square(read_points(given["xy"], rows, 2, self.num_points))
        prize, scale = to_unit(read_column(given["prize"], "prize", rows, points.shape[1] - 1))
        length = np.minimum(read_amount(given["max_length"], "max_length", rows) / side, self.amount_limit())
        prize = np.concatenate([np.zeros((rows, 1)), prize], axis=1)
        columns = np.concatenate([points, prize[..., None]], axis=2)
        known = read_reference(given.get("reference") if reference is None else reference, rows, is_gain=True)
        return make_instance(columns, self.num_points, self.dtype, self.device, scale, known, length)

    def plain(self, instance: Instance, i: int) -> dict[str, Any]:
        """Return instance i as a dict with "xy" and "max_length" in units of the square, and "prize"."""
        nodes, scale = self._plain_nodes(instance, i)
        return {"xy": nodes[:, :2], "prize": nodes[1:, 2] * scale, "max_length": float(instance.amount[i])}

    def first_allowed(self, rows: Any, instance: Instance) -> tuple[Tensor, Tensor]:
        """Return the allowed rows [B, R] bool, and whether there is none, [B] bool."""
        return self._allowed(rows, instance, instance.amount)

    def _allowed(self, rows: Any, instance: Instance, amount: Tensor) -> tuple[Tensor, Tensor]:
        xy = self.table.nodes(rows, instance)[..., :2]
        here = self.table.origin(rows, instance)[:, None, :2]
        home = self.table.destination(rows, instance)[:, None, :2]
        needed = distance(xy, here).add_(distance(xy, home))
        within = needed <= (amount + TOLERANCE).to(xy.dtype).unsqueeze(1)
        return self.all_if_none(within.logical_and_(self.table.is_open(rows)))

    def move(self, state: State, action: Tensor) -> Move:
        """Go on to a node and collect its prize; where nothing is within reach, stay."""
        table, instance, is_stuck = self.table, state.instance, state.is_over
        here = table.origin(state.rows, instance)
        rows, picked, _ = table.take(state.rows, instance, action, is_kept=is_stuck)
        leg = distance(picked[:, :2].double(), here[:, :2].double())
        amount = torch.where(is_stuck, state.amount, state.amount - leg)
        allowed, is_over = self._allowed(rows, instance, amount)
        gain = torch.where(is_stuck, 0.0, picked[:, 2].double()) * instance.scale
        return Move(rows, amount, allowed, is_over, -gain)

    def illegal_reward(self, state: State) -> Tensor:
        """Return [B] float32: the reward of an action that is not allowed, 0."""
        return torch.zeros_like(state.cost, dtype=torch.float32)

    def render(self, state: State, i: int) -> np.ndarray:
        """Draw the tour of row i, complete or not, as [H, W, 3] uint8."""
        from .pictures import draw_tour

        tour = np.array(self._row_solution(state, i), dtype=np.int64)
        nodes = state.instance.nodes[i, : int(state.instance.size[i])].cpu().numpy()
        title = (
            f"{len(tour) - 1} nodes, collected {-float(state.cost[i]):.3f}, length left {float(state.amount[i]):.3f}"
        )
        return draw_tour(nodes[:, :2], tour, bool(state.is_over[i]), title, nodes[:, 2])
