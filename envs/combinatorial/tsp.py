"""The travelling salesman problem."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError, check_int

from .construction import ConstructionTask, Move, State
from .instances import Instance, distribution_named, plain_instance
from .reading import entries, make_instance, read_points, read_reference, to_unit_square
from .tours import distance


class TSP(ConstructionTask):
    """Visit every point once and return to the first by the shortest tour.

    ## Description
    N points lie in the unit square. The tour starts at point 0; each step goes on to one of the open points, and after
    the last one the way back to point 0 is added. An episode has N - 1 steps.

    With `mdp="bq"` (the default) a state is only what remains to be solved: where the path stands (origin), where it
    must end (destination) and the open points, a smaller instance after each step (BQ-NCO, Drakulic et al. 2023). With
    `mdp="direct"` all points stay in their rows and are marked as visited. Both have the same tours and rewards.

    ## Action Space
    `Discrete(R)`: the row of the observation's table to go to next; `info["action_mask"]` tells which rows are open.
    R = N + 1 rows with "bq" (origin, destination, then open points in no particular order), R = N with "direct" (row =
    number of the point). `info["orig"]` gives the number of the point in each row, -1 in padding.

    ## Observation Space
    | name | shape, type | meaning | range |
    |---|---|---|---|
    | nodes | (R, 2) float32 | coordinates x, y; 0 in padding ("bq") | [0, 1] |
    | kind | (R,) int8 | 0 padding or visited, 1 origin, 2 destination, 3 open | 0..3 |
    | globals | (1,) float32 | open points / (N - 1) | [0, 1] |
    | visited | (N,) int8 | only "direct": visited or padding | 0, 1 |
    | first, last | (1,) int64 | only "direct": first and latest point of the path | 0..N - 1 |

    ## Rewards
    "dense": minus the length of the edge added, the last step including the way back; "sparse": minus the length of the
    tour at the end, 0 before. Both sum to minus the length of the tour. An action that is not open ends the episode
    with -N sqrt(2), a bound of the longest tour (Jumanji's value).

    ## Starting State
    Points drawn from `distribution`, or `reset(options={"instance": xy, "reference": cost})`: coordinates (m, 2) with
    2 <= m <= N, or (B, m, 2) in a vector environment, finite, equal points allowed. An instance that leaves the unit
    square is observed shifted and scaled into it by its larger side; rewards and costs keep its own units.

    ## Episode End
    All points are visited. `info["solution"]` is the order of the points so far (-1 behind them), `info["cost"]` the
    length so far in float64, of the closed tour at the end, and `info["gap"]` then cost / reference - 1 (infinite before
    the end, and where no reference is known).

    ## Arguments
    * `num_nodes`: number of points N, at least 2.
    * `mdp`: "bq" or "direct".
    * `reward`: "dense" or "sparse".
    * `distribution`: "uniform", or "clusters" (around five centres).

    ## Version History
    * v0: first version.
    """

    allows_all_open: ClassVar[bool] = True

    def __init__(
        self,
        *,
        num_nodes: int = 50,
        mdp: str = "bq",
        reward: str = "dense",
        distribution: str = "uniform",
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        """Make the task; see the class for the arguments.

        Raises:
            UsageError: `num_nodes` is not an integer of at least 2, or a name is unknown.
        """
        check_int(2, num_nodes=num_nodes)
        self.num_nodes = int(num_nodes)
        distribution_named(distribution)
        self.distribution = distribution
        super().__init__(self.num_nodes, mdp, reward, device, dtype)

    def generate(self, keys: Tensor) -> Instance:
        """Draw one instance for each key, [B, 2] int64; equal keys give equal instances."""
        return plain_instance(keys, distribution_named(self.distribution)(keys, self.num_points, self.dtype))

    def read(self, given: Any, rows: int, reference: Any) -> Instance:
        """Make instances of coordinates (m, 2) or (B, m, 2), or of a dict with "xy" and, if known, "reference".

        Raises:
            UsageError: the instance is malformed.
        """
        if isinstance(given, dict):
            if "distances" in given:
                raise UsageError(
                    "a matrix of distances belongs to polyathlon/ATSP-v0; this task takes coordinates 'xy'"
                )
            entries(given, ("xy",), "{'xy': (m, 2)}")
            reference = given.get("reference") if reference is None else reference
            given = given["xy"]
        points, scale = to_unit_square(read_points(given, rows, 2, self.num_points))
        known = read_reference(reference, rows)
        return make_instance(points, self.num_points, self.dtype, self.device, scale, known)

    def plain(self, instance: Instance, i: int) -> dict[str, Any]:
        """Return instance i as a dict with "xy"."""
        nodes, scale = self._plain_nodes(instance, i)
        return {"xy": nodes * scale}

    def move(self, state: State, action: Tensor) -> Move:
        """Go on to an open row; the last step adds the way back."""
        table, instance = self.table, state.instance
        ends = table.ends(state.rows, instance)
        rows, picked, _ = table.take(state.rows, instance, action)
        allowed, is_over = self.open_or_over(rows)
        legs = distance(picked.double().unsqueeze(1), ends.double())
        length = (legs[:, 0] + legs[:, 1] * is_over) * instance.scale
        return Move(rows, state.amount, allowed, is_over, length)

    def illegal_reward(self, state: State) -> Tensor:
        """Return [B] float32: the reward of an action that is not open, -N sqrt(2) in units of the instance."""
        return (-math.sqrt(2.0) * state.instance.size * state.instance.scale).to(torch.float32)

    def render(self, state: State, i: int) -> np.ndarray:
        """Draw the tour of row i, complete or not, as [H, W, 3] uint8."""
        from .pictures import draw_tour

        tour, cost, closed = self._tour(state, i)
        points = state.instance.xy[i, : int(state.instance.size[i])].cpu().numpy()
        return draw_tour(points, tour, closed, f"{len(tour)} of {len(points)} points, length {cost:.3f}")

    def render_text(self, state: State, i: int) -> str:
        """Write the tour of row i as a line of text."""
        tour, cost, closed = self._tour(state, i)
        route = [*tour, tour[0]] if closed else [*tour]
        return " - ".join(map(str, route)) + f"   length {cost:.6f}"

    def _tour(self, state: State, i: int) -> tuple[np.ndarray, float, bool]:
        tour = np.array(self._row_solution(state, i), dtype=np.int64)
        return tour, float(state.cost[i]), bool(state.is_over[i])
