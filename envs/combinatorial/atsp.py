"""The asymmetric travelling salesman problem."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.envs import random
from polyathlon.envs.errors import UsageError, check_int, unknown_name

from .construction import ConstructionTask, Move, State
from .instances import INSTANCE_STREAM, MatrixInstance, constant
from .reading import check_count, entries, numbers, read_reference
from .tables import in_pairs, rows_of

_CACHED_NUMBERS = 2**16
DISTANCES = ("remaining", "instance")


class ATSP(ConstructionTask):
    """Visit every node once and return to the first, where the way back may be longer than the way there.

    ## Description
    N nodes are given by the distances between them, which depend on the direction. The tour starts at node 0; each step
    goes on to one of the open nodes, and after the last one the way back to node 0 is added. An episode has N - 1 steps.

    With `mdp="bq"` (the default) a state is only what remains: where the path stands (origin), where it must end
    (destination), the open nodes and the distances among these (BQ-NCO, Drakulic et al. 2023). With `mdp="direct"` all
    nodes stay in their rows and are marked as visited. Both have the same tours and rewards.

    ## Action Space
    `Discrete(R)`: the row of the table to go to next; `info["action_mask"]` tells which rows are open. R = N + 1 rows
    with "bq" (origin, destination, then open nodes in no particular order), R = N with "direct" (row = number of the
    node). `info["orig"]` gives the number of the node in each row, -1 in padding.

    ## Observation Space
    | name | shape, type | meaning | range |
    |---|---|---|---|
    | nodes | (R, 2) float32 | distance from the origin, distance to the destination; 0 in padding ("bq") | [0, 1] |
    | kind | (R,) int8 | 0 padding or visited, 1 origin, 2 destination, 3 open | 0..3 |
    | globals | (1,) float32 | open nodes / (N - 1) | [0, 1] |
    | distances | (N, N) float32 | from node to node, as they were at the start | [0, 1] |
    | numbers | (R,) int32 | only "bq": number of the node in each row, to look distances up; 0 in padding | 0..N - 1 |
    | visited | (N,) int8 | only "direct": visited or padding | 0, 1 |
    | first, last | (1,) int64 | only "direct": first and latest node of the path | 0..N - 1 |

    ## Rewards
    "dense": minus the distance added, the last step including the way back; "sparse": minus the length of the tour at
    the end, 0 before. An action that is not open ends the episode with -N times the largest distance.

    ## Starting State
    Distances uniform in [0, 1), shortened until no detour is shorter than the direct way (Kwon et al. 2021, MatNet); or
    `reset(options={"instance": distances, "reference": cost})`: a matrix (m, m) with 2 <= m <= N, or (B, m, m) in a
    vector environment, finite, not negative, the diagonal 0; symmetric ones are allowed. Distances above 1 are observed
    divided by the largest; rewards and costs keep the instance's own units.

    ## Episode End
    All nodes are visited. `info["solution"]` is the order of the nodes so far (-1 behind them), `info["cost"]` the
    length so far in float64, of the closed tour at the end, and `info["gap"]` then cost / reference - 1 (infinite before
    the end, and where no reference is known).

    ## Arguments
    * `num_nodes`: number of nodes N, at least 2.
    * `mdp`: "bq" or "direct".
    * `reward`: "dense" or "sparse".
    * `distances`: "instance": as above; a vector environment may hand out one tensor for all steps of an episode, so do
      not write into it. Or "remaining": (R, R) among the rows of the table, 0 in padding, and no `numbers`; building it
      anew in each step takes ten times as long as the step, but networks that do not look up, such as perceptrons, learn
      more from it. With "direct" both are the same.

    ## Version History
    * v0: first version.
    """

    features: ClassVar[tuple[str, ...]] = ("from origin", "to destination")

    allows_all_open: ClassVar[bool] = True

    def __init__(
        self,
        *,
        num_nodes: int = 50,
        mdp: str = "bq",
        reward: str = "dense",
        distances: str = "instance",
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        """Make the task; see the class for the arguments.

        Raises:
            UsageError: `num_nodes` is not an integer of at least 2, or a name is unknown.
        """
        check_int(2, num_nodes=num_nodes)
        self.num_nodes = int(num_nodes)
        if distances not in DISTANCES:
            raise unknown_name("distances", str(distances), DISTANCES)
        self.distances = distances
        self.is_looked_up = distances == "instance" and mdp == "bq"
        if distances == "instance" or mdp == "direct":
            self.lasting = ("distances",)
        super().__init__(self.num_nodes, mdp, reward, device, dtype)
        if mdp == "bq":  # by number of open nodes: 1 in the rows that hold a node
            self.node_rows = (~self.table.padding).to(torch.int32)
            self.node_weights = self.node_rows.to(self.dtype)

    def _spaces(self) -> dict[str, gym.Space[Any]]:
        rows = self.num_points if self.is_looked_up else self.table.num_rows
        fields = {**super()._spaces(), "distances": spaces.Box(0.0, 1.0, (rows, rows), self.numpy_dtype)}
        if self.is_looked_up:
            fields["numbers"] = spaces.Box(0, self.num_points - 1, (self.table.num_rows,), np.int32)
        return fields

    def generate(self, keys: Tensor) -> MatrixInstance:
        """Draw one instance for each key, [B, 2] int64; equal keys give equal instances."""
        # a processor's cache holds so many numbers that the many sweeps over them need not fetch them anew
        rows = max(1, _CACHED_NUMBERS // self.num_points**2) if keys.device.type == "cpu" else len(keys)
        return matrix_instance(keys, torch.cat([self._draw(part) for part in keys.split(max(1, rows))]))

    def _draw(self, keys: Tensor) -> Tensor:
        n = self.num_points
        d = random.uniform(keys, 0, (n, n), self.dtype, stream=INSTANCE_STREAM)
        d.diagonal(dim1=1, dim2=2).zero_()
        return closure(d)

    def read(self, given: Any, rows: int, reference: Any) -> MatrixInstance:
        """Make instances of distances (m, m) or (B, m, m), or of a dict with "distances" and, if known, "reference".

        Raises:
            UsageError: the instance is malformed.
        """
        if isinstance(given, dict):
            entries(given, ("distances",), "{'distances': (m, m)}")
            reference = given.get("reference") if reference is None else reference
            given = given["distances"]
        matrix = read_matrix(given, rows, self.num_points)
        count, n = matrix.shape[1], self.num_points
        largest = matrix.max(axis=(1, 2))
        scale = np.where(largest > 1.0, largest, 1.0)
        d = torch.zeros((rows, n, n), dtype=self.dtype, device=self.device)
        d[:, :count, :count] = torch.as_tensor(matrix / scale[:, None, None], dtype=self.dtype, device=self.device)
        return MatrixInstance(
            d,
            d[:, :, :1].contiguous(),
            torch.zeros(rows, dtype=torch.float64, device=self.device),
            torch.full((rows,), count, dtype=torch.int64, device=self.device),
            torch.as_tensor(scale, dtype=torch.float64, device=self.device),
            torch.as_tensor(np.array(read_reference(reference, rows)), dtype=torch.float64, device=self.device),
        )

    def plain(self, instance: MatrixInstance, i: int) -> dict[str, Any]:
        """Return instance i as a dict with "distances"."""
        m = int(instance.size[i])
        return {"distances": instance.distances[i, :m, :m].double().cpu().numpy() * float(instance.scale[i])}

    def move(self, state: State, action: Tensor) -> Move:
        """Go on to an open row; the last step adds the way back."""
        table, instance = self.table, state.instance
        here = table.origin_number(state.rows)
        rows, picked, there = table.take(state.rows, instance, action)
        allowed, is_over = self.open_or_over(rows)
        edge = (here * self.num_points + there).unsqueeze(1)
        leg = instance.distances.flatten(1).gather(1, edge).squeeze(1)
        length = (leg.double() + picked[:, 0].double() * is_over) * instance.scale
        return Move(rows, state.amount, allowed, is_over, length)

    def observe(self, state: State, player: Tensor | None = None) -> dict[str, Tensor]:
        """Return the observation; see the class."""
        seen = {**super().observe(state), "distances": self.observed_distances(state)}
        if self.is_looked_up:
            seen["numbers"] = self.node_rows.index_select(0, state.rows.num_open).mul_(state.rows.orig)
        return seen

    def observed_nodes(self, state: State) -> Tensor:
        """Return [B, R, 2] the distances from the origin and to the destination."""
        d, rows = state.instance.distances, state.rows
        from_here = rows_of(d, self.table.origin_number(rows))
        if self.mdp == "bq":
            from_here = from_here.gather(1, rows.orig.long())
            from_here.mul_(self.node_weights.index_select(0, rows.num_open))
        return in_pairs(from_here, self.table.nodes(rows, state.instance).squeeze(2))

    def observed_distances(self, state: State) -> Tensor:
        """Return [B, R, R] the distances among the rows of the table."""
        d: Tensor = state.instance.distances
        if self.mdp == "direct" or self.is_looked_up:
            return d
        is_node = ~self.table.is_padding(state.rows)
        index = state.rows.orig.long()
        n = self.num_points
        start = torch.arange(d.shape[0], device=d.device).unsqueeze(1) * n
        lines = d.view(-1, n).index_select(0, (index + start).flatten()).view(*index.shape, n)
        square = lines.gather(2, index.unsqueeze(1).expand(-1, index.shape[1], -1))
        return square.mul_(is_node.unsqueeze(1)).mul_(is_node.unsqueeze(2))

    def illegal_reward(self, state: State) -> Tensor:
        """Return [B] float32: the reward of an action that is not open, -N times the largest distance."""
        largest = state.instance.distances.flatten(1).amax(1).double()
        return (-state.instance.size * largest * state.instance.scale).to(torch.float32)

    def render(self, state: State, i: int) -> np.ndarray:
        """Draw the tour of row i, complete or not, on a circle of nodes, as [H, W, 3] uint8."""
        from .pictures import draw_circle

        tour = np.array(self._row_solution(state, i), dtype=np.int64)
        size = int(state.instance.size[i])
        title = f"{len(tour)} of {size} nodes, length {float(state.cost[i]):.3f}"
        return draw_circle(size, tour, bool(state.is_over[i]), title)


def closure(d: Tensor) -> Tensor:
    """Return the lengths of the shortest ways [B, N, N] from the distances [B, N, N] (Floyd 1962; Warshall 1962)."""
    d, detour = d.clone(), torch.empty_like(d)
    for k in range(d.shape[1]):
        torch.add(d[:, :, k : k + 1], d[:, k : k + 1], out=detour)
        torch.minimum(d, detour, out=d)
    return d


def matrix_instance(keys: Tensor, distances: Tensor) -> MatrixInstance:
    """Make instances of full size without references, for keys [B, 2] and distances [B, N, N] in [0, 1]."""
    return MatrixInstance(
        distances,
        distances[:, :, :1].contiguous(),
        constant(0.0, keys),
        constant(distances.shape[1], keys, torch.int64),
        constant(1.0, keys),
        constant(torch.nan, keys),
    )


def read_matrix(given: Any, rows: int, most: int) -> np.ndarray:
    """Check distances that a user gave and return them as [B, m, m] float64.

    Raises:
        UsageError: the shape is wrong, a distance is negative or not finite, or the diagonal is not 0.
    """
    matrix = numbers(given, "a matrix of distances (m, m); its entries")
    matrix = matrix[None] if matrix.ndim == 2 else matrix
    if matrix.ndim != 3 or matrix.shape[1] != matrix.shape[2] or matrix.shape[0] not in (1, rows):
        raise UsageError(f"an instance has the shape (m, m), or ({rows}, m, m) for every row; got {np.shape(given)}")
    check_count(matrix.shape[1], 2, most, "nodes", "num_nodes")
    if (matrix < 0).any():
        row, i, j = np.argwhere(matrix < 0)[0]
        raise UsageError(f"a distance must not be negative, got {matrix[row, i, j]:g} from node {i} to node {j}")
    if np.diagonal(matrix, axis1=1, axis2=2).any():
        raise UsageError("the distance of a node to itself must be 0: the diagonal of the matrix holds something else")
    return np.broadcast_to(matrix, (rows, *matrix.shape[1:]))
