"""The travelling salesman problem."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.envs.tensor import TensorEnv

from .instances import Instance, distribution_named, generate, read_instance
from .tours import gap
from .tsp_direct import DirectState, DirectTSP
from .tsp_reduced import ReducedState, ReducedTSP

TSPState = ReducedState | DirectState
_MDPS: dict[str, Any] = {"bq": ReducedTSP, "direct": DirectTSP}
_REWARDS = ("dense", "sparse")
_OPTIONS = ("instance", "reference")


class TSP(TensorEnv):
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

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array", "ansi"], "render_fps": 4}

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
        super().__init__(device=device, dtype=dtype)
        if isinstance(num_nodes, bool) or not isinstance(num_nodes, int | np.integer) or num_nodes < 2:
            raise UsageError(f"num_nodes must be an integer of at least 2, got {num_nodes!r}")
        if mdp not in _MDPS:
            raise unknown_name("mdp", str(mdp), _MDPS)
        if reward not in _REWARDS:
            raise unknown_name("reward", str(reward), _REWARDS)
        distribution_named(distribution)
        self.num_nodes = int(num_nodes)
        self.mdp = mdp
        self.reward = reward
        self.distribution = distribution
        self._mdp: Any = _MDPS[mdp](self.num_nodes, self.device)
        self.observation_space = self._observation_space()
        self.action_space = spaces.Discrete(self._mdp.num_rows)

    def _observation_space(self) -> gym.Space[Any]:
        rows, n = self._mdp.num_rows, self.num_nodes
        fields: dict[str, gym.Space[Any]] = {
            "nodes": spaces.Box(0.0, 1.0, (rows, 2), self.numpy_dtype),
            "kind": spaces.Box(0, 3, (rows,), np.int8),
            "globals": spaces.Box(0.0, 1.0, (1,), self.numpy_dtype),
        }
        if self.mdp == "direct":
            fields["visited"] = spaces.Box(0, 1, (n,), np.int8)
            fields["first"] = spaces.Box(0, n - 1, (1,), np.int64)
            fields["last"] = spaces.Box(0, n - 1, (1,), np.int64)
        return spaces.Dict(fields)

    def reset(self, keys: Tensor, options: dict[str, Any] | None = None) -> TSPState:
        """Start an episode for each key.

        Args:
            keys: [B, 2] int64 random keys.
            options: "instance" and "reference", see the class.

        Raises:
            UsageError: an option is unknown or malformed.
        """
        state: TSPState = self._mdp.begin(keys, self._instance(keys, options or {}))
        return state

    def _instance(self, keys: Tensor, options: dict[str, Any]) -> Instance:
        for name in options:
            if name not in _OPTIONS:
                raise unknown_name("reset option", str(name), _OPTIONS)
        given, reference = options.get("instance"), options.get("reference")
        if given is not None:
            return read_instance(given, keys.shape[0], self.num_nodes, self.dtype, keys.device, reference)
        if reference is not None:
            raise UsageError("the reset option 'reference' belongs to an 'instance'; give both")
        return generate(self.distribution, keys, self.num_nodes, self.dtype)

    def step(self, state: TSPState, action: Tensor) -> tuple[TSPState, Tensor, Tensor]:
        """Go on to an open row.

        Args:
            state: the state before.
            action: [B] int64 row of the table; must be open.

        Returns:
            The state after, the reward [B] float32 and terminated [B] bool.
        """
        after, length, is_complete = self._mdp.step(state, action)
        cost = length if self.reward == "dense" else after.cost * is_complete
        return after, -cost.to(torch.float32), is_complete

    def observe(self, state: TSPState, player: Tensor | None = None) -> dict[str, Tensor]:
        """Return the observation; see the class."""
        observation: dict[str, Tensor] = self._mdp.observe(state)
        return observation

    def mask(self, state: TSPState, player: Tensor | None = None) -> Tensor:
        """Return [B, R] bool: the open rows, all rows once the tour is complete."""
        mask: Tensor = self._mdp.mask(state)
        return mask

    def info(self, state: TSPState) -> dict[str, Tensor]:
        """Return "solution" [B, N] int64, "cost" [B] float64, "gap" [B] float64 and "orig" [B, R] int32; see the class."""
        has_gap = (state.num_open == 0) & ~state.reference.isnan()
        return {
            "solution": self._mdp.order(state),
            "cost": state.cost,
            "gap": torch.where(has_gap, gap(state.cost, state.reference), torch.inf),
            "orig": self._mdp.row_numbers(state),
        }

    def illegal_reward(self, state: TSPState) -> Tensor:
        """Return [B] float32: the reward of an action that is not open, -N sqrt(2) in units of the instance."""
        return (-math.sqrt(2.0) * state.size * state.scale).to(torch.float32)

    def action_of(self, state: TSPState, point: Tensor) -> Tensor:
        """Return [B] int64 the action that goes on to the open point number `point`, [B] int64."""
        action: Tensor = self._mdp.action_of(state, point)
        return action

    def render(self, state: TSPState, i: int) -> np.ndarray:
        """Draw the tour of row i, complete or not, as [H, W, 3] uint8."""
        from .pictures import draw_tour

        tour, cost, closed = self._tour(state, i)
        points = state.xy[i, : int(state.size[i])].cpu().numpy()
        return draw_tour(points, tour, closed, f"{len(tour)} of {len(points)} points, length {cost:.3f}")

    def render_text(self, state: TSPState, i: int) -> str:
        """Write the tour of row i as a line of text."""
        tour, cost, closed = self._tour(state, i)
        route = [*tour, tour[0]] if closed else [*tour]
        return " - ".join(map(str, route)) + f"   length {cost:.6f}"

    def _tour(self, state: TSPState, i: int) -> tuple[np.ndarray, float, bool]:
        order = self._mdp.order(state)[i]
        return order[order >= 0].cpu().numpy(), float(state.cost[i]), int(state.num_open[i]) == 0
