"""The travelling salesman problem with several lengths of every edge at once."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.envs import random
from polyathlon.envs.errors import UsageError, check_int, unknown_name
from polyathlon.envs.tensor import TensorEnv

from .instances import INSTANCE_STREAM

_REWARDS = ("scalar", "vector")


class ToursState(NamedTuple):
    """A partial tour in each row of a batch.

    Attributes:
        key: [B, 2] int64 random key.
        t: [B] int64 number of steps taken.
        xy: [B, N, k, 2] coordinates of the points in each of k maps.
        visited: [B, N] bool.
        order: [B, N] int64 the points visited so far, -1 behind them.
        last: [B] int64 the point where the path stands.
        costs: [B, k] float64 length of the path so far in each map.
    """

    key: Tensor
    t: Tensor
    xy: Tensor
    visited: Tensor
    order: Tensor
    last: Tensor
    costs: Tensor


class MultiObjectiveTSP(TensorEnv):
    """Visit every point once and return to the first by a tour that is short on several maps at once.

    ## Description
    Each of N points has a place on each of k maps, unit squares of their own; the same tour has a length on every map
    (the bi-objective Euclidean problem of Lust and Teghem 2010 for k = 2). The tour starts at point 0; each step goes on to
    an open point, and after the last one the way back to point 0 is added. An episode has N - 1 steps.

    ## Action Space
    `Discrete(N)`: the point to go to next; `info["action_mask"]` tells which ones are open.

    ## Observation Space
    | name | shape, type | meaning | range |
    |---|---|---|---|
    | nodes | (N, 2 k) float32 | coordinates x, y on the first map, then on the second ... | [0, 1] |
    | kind | (N,) int8 | 0 visited, 1 where the path stands, 2 where it must end, 3 open | 0..3 |

    ## Rewards
    With `reward="vector"` minus the length of the edge added on each map, (k,) float32, the last step including the way back;
    with `reward="scalar"` their mean. An action that is not open ends the episode with -N sqrt(2) for every objective, a
    bound of the longest tour.

    ## Starting State
    Places drawn uniformly, for each map apart; or `reset(options={"instance": xy})` with coordinates (N, k, 2), or
    (B, N, k, 2) in a vector environment, in [0, 1].

    ## Episode End
    All points are visited. `info["solution"]` is the order of the points so far (-1 behind them) and `info["costs"]` (k,) the
    lengths so far in float64, of the closed tour at the end.

    ## Arguments
    * `num_nodes`: number of points N, at least 2.
    * `num_objectives`: number of maps k, at least 2.
    * `reward`: "scalar" or "vector".

    ## Version History
    * v0: first version.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array", "ansi"], "render_fps": 4}

    def __init__(
        self,
        *,
        num_nodes: int = 20,
        num_objectives: int = 2,
        reward: str = "scalar",
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        """Make the task; see the class for the arguments.

        Raises:
            UsageError: a number is not an integer of at least 2, or the form of the reward is unknown.
        """
        super().__init__(device=device, dtype=dtype)
        check_int(2, num_nodes=num_nodes, num_objectives=num_objectives)
        if reward not in _REWARDS:
            raise unknown_name("reward", str(reward), _REWARDS)
        self.num_nodes, self.num_maps, self.reward = int(num_nodes), int(num_objectives), reward
        self.reward_shape = (self.num_maps,) if reward == "vector" else ()
        self.action_space = spaces.Discrete(self.num_nodes)
        self.observation_space = spaces.Dict(
            {
                "nodes": spaces.Box(0.0, 1.0, (self.num_nodes, 2 * self.num_maps), self.numpy_dtype),
                "kind": spaces.Box(0, 3, (self.num_nodes,), np.int8),
            }
        )

    def reset(self, keys: Tensor, options: dict[str, Any] | None = None) -> ToursState:
        """Start an episode for each key, [B, 2] int64.

        Raises:
            UsageError: an option is unknown, or the instance is malformed.
        """
        for name in options or {}:
            if name != "instance":
                raise unknown_name("reset option", str(name), ("instance",))
        rows, shape = keys.shape[0], (self.num_nodes, self.num_maps, 2)
        if options and options.get("instance") is not None:
            xy = self._read(options["instance"], rows)
        else:
            xy = random.uniform(keys, 0, shape, self.dtype, stream=INSTANCE_STREAM)
        visited = torch.zeros(rows, self.num_nodes, dtype=torch.bool, device=keys.device)
        visited[:, 0] = True
        order = torch.full((rows, self.num_nodes), -1, dtype=torch.int64, device=keys.device)
        order[:, 0] = 0
        zero = torch.zeros(rows, dtype=torch.int64, device=keys.device)
        costs = torch.zeros(rows, self.num_maps, dtype=torch.float64, device=keys.device)
        return ToursState(keys, zero, xy, visited, order, zero.clone(), costs)

    def _read(self, given: Any, rows: int) -> Tensor:
        shape = (self.num_nodes, self.num_maps, 2)
        try:
            xy = torch.as_tensor(given, dtype=self.dtype, device=self.device)
        except (TypeError, ValueError, RuntimeError):
            xy = torch.empty(0)
        if tuple(xy.shape[-3:]) != shape or tuple(xy.shape[:-3]) not in ((), (1,), (rows,)):
            raise UsageError(
                f"an instance has the shape {shape}, or {(rows, *shape)} for every row; got {np.shape(given)}"
            )
        if not bool(((xy >= 0) & (xy <= 1)).all()):
            raise UsageError("an instance holds a coordinate outside [0, 1]; scale it into the unit square")
        return xy.reshape(-1, *shape).expand(rows, *shape).clone()

    def step(self, state: ToursState, action: Tensor) -> tuple[ToursState, Tensor, Tensor]:
        """Go on to an open point, [B] int64."""
        is_last = state.t + 1 >= self.num_nodes - 1
        home = torch.zeros_like(action)
        length = self._edge(state.xy, state.last, action) + self._edge(state.xy, action, home) * is_last.unsqueeze(1)
        # what is done to a complete tour is never seen, but must stay inside the table
        slot = (state.t + 1).clamp(max=self.num_nodes - 1).unsqueeze(1)
        after = state._replace(
            t=state.t + 1,
            visited=state.visited.scatter(1, action.unsqueeze(1), True),
            order=state.order.scatter(1, slot, action.unsqueeze(1)),
            last=action,
            costs=state.costs + length,
        )
        paid = -length if self.reward == "vector" else -length.mean(1)
        return after, paid.to(torch.float32), is_last

    def _edge(self, xy: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Return [B, k] float64 the length of the edge between two points, [B] int64 each."""

        def place(point: Tensor) -> Tensor:
            index = point.reshape(-1, 1, 1, 1).expand(-1, 1, self.num_maps, 2)
            return xy.gather(1, index).squeeze(1).double()

        return torch.linalg.vector_norm(place(end) - place(start), dim=2)

    def observe(self, state: ToursState, player: Tensor | None = None) -> dict[str, Tensor]:
        """Return the observation; see the class."""
        kind = torch.where(state.visited, 0, 3)
        kind[:, 0] = 2
        kind = kind.scatter(1, state.last.unsqueeze(1), 1)
        return {"nodes": state.xy.flatten(2), "kind": kind.to(torch.int8)}

    def mask(self, state: ToursState, player: Tensor | None = None) -> Tensor:
        """Return [B, N] bool: the open points, all points once the tour is complete."""
        return ~state.visited | state.visited.all(1, keepdim=True)

    def info(self, state: ToursState) -> dict[str, Tensor]:
        """Return "solution" [B, N] int64 and "costs" [B, k] float64; see the class."""
        return {"solution": state.order, "costs": state.costs}

    def illegal_reward(self, state: ToursState) -> Tensor:
        """Return [B] float32: the reward of an action that is not open, for every objective."""
        return torch.full_like(state.t, -math.sqrt(2.0) * self.num_nodes, dtype=torch.float32)

    def render(self, state: ToursState, i: int) -> np.ndarray:
        """Draw the tour of row i, complete or not, on every map side by side, as [H, W, 3] uint8."""
        from .pictures import draw_tour

        tour, costs, closed = self._tour(state, i)
        maps = state.xy[i].cpu().numpy()
        drawn = [
            draw_tour(maps[:, k], tour, closed, f"map {k + 1}: length {costs[k]:.3f}") for k in range(self.num_maps)
        ]
        return np.concatenate(drawn, axis=1)

    def render_text(self, state: ToursState, i: int) -> str:
        """Write the tour of row i as a line of text."""
        tour, costs, closed = self._tour(state, i)
        route = [*tour, tour[0]] if closed else [*tour]
        return " - ".join(map(str, route)) + "   lengths " + ", ".join(f"{cost:.6f}" for cost in costs)

    def _tour(self, state: ToursState, i: int) -> tuple[np.ndarray, list[float], bool]:
        order = state.order[i]
        return order[order >= 0].cpu().numpy(), state.costs[i].tolist(), bool(state.visited[i].all())
