"""The capacitated vehicle routing problem."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from polyathlon.envs import random
from polyathlon.envs.errors import UsageError, check_positive, check_positive_int

from .construction import TOLERANCE, ConstructionTask, Move, State, nearest_entry
from .instances import INSTANCE_STREAM, Instance, distribution_named, plain_instance
from .reading import (
    entries,
    make_instance,
    numbers,
    read_amount,
    read_column,
    read_points,
    read_reference,
    to_unit_square,
)
from .tables import in_pairs
from .tours import distance

# Kool et al. 2019 and the table of RL4CO: customers -> capacity, for demands from 1 to 9
CAPACITIES = {
    10: 20.0,
    15: 25.0,
    20: 30.0,
    30: 33.0,
    40: 37.0,
    50: 40.0,
    60: 43.0,
    75: 45.0,
    100: 50.0,
    125: 55.0,
    150: 60.0,
    200: 70.0,
    500: 100.0,
    1000: 150.0,
}
MOST_DEMAND = 9


class CVRP(ConstructionTask):
    """Serve every customer by routes from a depot, each within the capacity of a vehicle, on the shortest way in all.

    ## Description
    n customers with demands and a depot lie in the unit square. The solution is one walk through all customers; before
    each of them it may come by the depot, where a fresh vehicle takes over. An episode has n steps; after the last
    customer the way back to the depot is added. Any number of vehicles may be used.

    With `mdp="bq"` (the default) a state is only what remains: where the walk stands (origin), the depot, the open
    customers and the capacity that is left (BQ-NCO, Drakulic et al. 2023). With `mdp="direct"` all nodes stay in their
    rows and are marked as visited. Both have the same solutions and rewards.

    ## Action Space
    `Discrete(2 R)`: action 2 row + 0 goes straight to the customer in the row, if its demand fits into what is left;
    2 row + 1 goes there by the depot. From the depot both are the same. R = n + 2 rows with "bq" (origin, depot, open
    customers in no particular order), R = n + 1 with "direct" (row = number of the node, the depot is 0).
    `info["action_mask"]` tells what is allowed, `info["orig"]` the number of the node in each row, -1 in padding.

    ## Observation Space
    | name | shape, type | meaning | range |
    |---|---|---|---|
    | nodes | (R, 3) float32 | x, y, demand / capacity; 0 in padding ("bq") | [0, 1] |
    | kind | (R,) int8 | 0 padding or visited, 1 origin, 2 depot, 3 open | 0..3 |
    | globals | (2,) float32 | open customers / n, capacity left / capacity | [0, 1] |
    | visited | (R,) int8 | only "direct": visited or padding | 0, 1 |
    | first, last | (1,) int64 | only "direct": depot and latest node of the walk | 0..n |

    ## Rewards
    "dense": minus the length added by the step, the last one including the way back; "sparse": minus the length of all
    routes at the end, 0 before. An action that is not allowed ends the episode with -2 n sqrt(2) (Jumanji's value).

    ## Starting State
    Nodes drawn from `distribution`, demands uniform in 1..9; or `reset(options={"instance": {"xy": (m + 1, 2), depot
    first, "demand": (m,), "capacity": c}, "reference": cost})`, each entry with a leading axis B in a vector
    environment if rows differ; 1 <= m <= n. Demands are at most the capacity and may be 0. What leaves the unit square
    is observed shifted and scaled into it; rewards and costs keep the instance's own units.

    ## Episode End
    All customers are served. `info["solution"]` is the walk so far as numbers of nodes, with 0 wherever it comes by the
    depot, -1 behind it; `info["cost"]` its length in float64, and `info["gap"]` at the end (cost - reference) /
    reference (infinite before, and where no reference is known).

    ## Arguments
    * `num_nodes`: number of customers n, without the depot, at least 1.
    * `capacity`: of a vehicle, at least 9; None for that of the number of customers nearest to n in the literature.
    * `mdp`: "bq" or "direct".
    * `reward`: "dense" or "sparse".
    * `distribution`: "uniform", or "clusters" (around five centres).

    ## Version History
    * v0: first version.
    """

    features: ClassVar[tuple[str, ...]] = ("x", "y", "demand")
    actions_per_row: ClassVar[int] = 2

    def __init__(
        self,
        *,
        num_nodes: int = 50,
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
        check_positive_int(num_nodes=num_nodes)
        self.num_nodes = int(num_nodes)
        given = nearest_entry(CAPACITIES, self.num_nodes) if capacity is None else capacity
        check_positive(capacity=given)
        self.capacity = float(given)
        if self.capacity < MOST_DEMAND:
            raise UsageError(f"capacity must be at least {MOST_DEMAND}, the largest demand drawn, got {capacity!r}")
        distribution_named(distribution)
        self.distribution = distribution
        super().__init__(self.num_nodes + 1, mdp, reward, device, dtype)

    def amount_limit(self) -> float:
        """Return 1, a full vehicle."""
        return 1.0

    def generate(self, keys: Tensor) -> Instance:
        """Draw one instance for each key, [B, 2] int64; equal keys give equal instances."""
        xy = distribution_named(self.distribution)(keys, self.num_points, self.dtype)
        demand = random.integers(keys, 3, 1, MOST_DEMAND + 1, (self.num_points,), stream=INSTANCE_STREAM)
        demand = demand.to(self.dtype) / self.capacity
        demand[:, 0] = 0.0
        return plain_instance(keys, torch.cat([xy, demand.unsqueeze(2)], dim=2), 1.0)

    def read(self, given: Any, rows: int, reference: Any) -> Instance:
        """Make instances of a dict; see the class.

        Raises:
            UsageError: the instance is malformed.
        """
        given = entries(given, ("xy", "demand", "capacity"), "{'xy': (m + 1, 2), 'demand': (m,), 'capacity': c}")
        points, scale = to_unit_square(read_points(given["xy"], rows, 2, self.num_points))
        demand = read_demand(given["demand"], rows, points.shape[1])
        capacity = read_amount(given["capacity"], "capacity", rows)
        if (demand > capacity[:, None]).any():
            row, node = np.argwhere(demand > capacity[:, None])[0]
            raise UsageError(
                f"customer {node} has the demand {demand[row, node]:g}, more than the capacity {capacity[row]:g}: "
                "no vehicle can serve it"
            )
        columns = np.concatenate([points, (demand / capacity[:, None])[..., None]], axis=2)
        known = read_reference(given.get("reference") if reference is None else reference, rows)
        return make_instance(columns, self.num_points, self.dtype, self.device, scale, known, np.ones(rows))

    def plain(self, instance: Instance, i: int) -> dict[str, Any]:
        """Return instance i as a dict with "xy", "demand" as shares of the capacity, and "capacity", which is 1."""
        nodes, scale = self._plain_nodes(instance, i)
        return {"xy": nodes[:, :2] * scale, "demand": nodes[1:, 2], "capacity": 1.0}

    def first_allowed(self, rows: Any, instance: Instance) -> tuple[Tensor, Tensor]:
        """Return the allowed actions [B, 2 R] bool, and whether there is none, [B] bool."""
        return self._allowed(rows, instance, instance.amount)

    def _allowed(self, rows: Any, instance: Instance, amount: Tensor) -> tuple[Tensor, Tensor]:
        reachable, is_over = self.open_or_over(rows)
        demand = self.table.nodes(rows, instance)[..., 2]
        # at the end everything is allowed
        left = torch.where(is_over, 2.0, amount + TOLERANCE).to(demand.dtype).unsqueeze(1)
        straight = (demand <= left).logical_and_(reachable)
        return in_pairs(straight, reachable).flatten(1), is_over

    def move(self, state: State, action: Tensor) -> Move:
        """Go on to a customer, straight (even actions) or by the depot (odd ones)."""
        table, instance = self.table, state.instance
        row, via = action >> 1, action & 1
        here, depot = table.ends(state.rows, instance).unbind(1)
        rows, picked, _ = table.take(state.rows, instance, row, extra=via)
        by_depot, end = via.bool(), picked.double()
        amount = torch.where(by_depot, 1.0, state.amount) - end[:, 2]
        allowed, is_over = self._allowed(rows, instance, amount)
        here, depot = here[:, :2].double(), depot[:, :2].double()
        legs = distance(torch.stack((here, here, depot), dim=1), torch.stack((end[:, :2], depot, end[:, :2]), dim=1))
        straight, back, home = legs.unbind(1)
        length = torch.where(by_depot, back + home, straight) + home * is_over
        return Move(rows, amount, allowed, is_over, length * instance.scale)

    def action_of(self, state: State, node: Tensor, via: Tensor | None = None) -> Tensor:
        """Return [B] int64 the action that goes to the open customer `node` [B]; by the depot where `via` [B] is 1."""
        row = self.table.row_of(state.rows, node)
        return 2 * row if via is None else 2 * row + via.long()

    def walk(self, state: State) -> tuple[Tensor, Tensor]:
        """Return the customers so far in order and whether each was reached by the depot, both [B, N] int64, -1 behind."""
        codes = self.table.history(state.rows, state.instance)
        return codes >> 1, torch.where(codes >= 0, codes & 1, -1)

    def solution(self, state: State) -> Tensor:
        """Return the walk so far with the depot in it, [B, 2 n + 1] int64, -1 behind it; it ends at the depot."""
        customers, via = self.walk(state)
        return with_depot(customers, via, state.is_over)[:, : 2 * self.num_nodes + 1]

    def illegal_reward(self, state: State) -> Tensor:
        """Return [B] float32: the reward of an action that is not allowed, -2 n sqrt(2) in units of the instance."""
        customers = state.instance.size - 1
        return (-2.0 * math.sqrt(2.0) * customers * state.instance.scale).to(torch.float32)

    def render(self, state: State, i: int) -> np.ndarray:
        """Draw the routes of row i, complete or not, as [H, W, 3] uint8."""
        from .pictures import draw_routes, split_routes

        size = int(state.instance.size[i])
        nodes, walk = state.instance.nodes[i, :size].cpu().numpy(), self._row_solution(state, i)
        routes = split_routes(walk)
        served, cost = sum(map(len, routes)), float(state.cost[i])
        title = f"{served} of {size - 1} customers, {len(routes)} vehicles, length {cost:.3f}"
        return draw_routes(nodes[:, :2], walk, nodes[:, 2], title)


def read_demand(given: Any, rows: int, count: int) -> np.ndarray:
    """Check demands of the customers, with or without the depot's zero, and return them with it, [B, count] float64.

    Raises:
        UsageError: the shape is wrong, or a demand is negative, not finite, or the depot's and not 0.
    """
    demand = numbers(given, "demand")
    if demand.ndim in (1, 2) and demand.shape[-1] == count:
        if (demand[..., 0] != 0).any():
            raise UsageError("the first demand is the depot's and must be 0; or give the customers' demands alone")
        demand = demand[..., 1:]
    column = read_column(demand, "demand", rows, count - 1)
    return np.concatenate([np.zeros((rows, 1)), column], axis=1)


def with_depot(customers: Tensor, via: Tensor, is_closed: Tensor) -> Tensor:
    """Write a walk with the depot 0 at its start, wherever it comes by it, and at its end.

    Args:
        customers: [B, N] int64 in order, -1 behind.
        via: [B, N] int64, 1 where a customer is reached by the depot; at the first customer it means nothing.
        is_closed: [B] bool, the walk has come home.

    Returns:
        [B, 2 N + 1] int64, -1 behind the walk.
    """
    batch, n = customers.shape
    held = customers >= 0
    by_depot = (via == 1) & held
    by_depot[:, 0] = False
    place = torch.arange(1, n + 1, device=customers.device) + by_depot.cumsum(1)
    spare = 2 * n + 1  # a slot that is cut off takes what is not there
    walk = torch.full((batch, spare + 1), -1, dtype=torch.int64, device=customers.device)
    walk[:, 0] = 0
    walk.scatter_(1, torch.where(held, place, spare), customers)
    walk.scatter_(1, torch.where(by_depot, place - 1, spare), torch.zeros_like(customers))
    end = torch.where(held, place, 0).amax(1, keepdim=True) + 1
    walk.scatter_(1, torch.where(is_closed.unsqueeze(1), end, spare), torch.zeros_like(end))
    return walk[:, :spare]
