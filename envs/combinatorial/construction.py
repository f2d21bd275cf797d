"""What the combinatorial tasks share: a solution is built by choosing one node after another from a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.envs.errors import UsageError, check_choice, unknown_name
from polyathlon.envs.tensor import TensorEnv

from .tables import DirectRows, DirectTable, ReducedRows, ReducedTable, spread
from .tours import gap

MDPS: dict[str, Any] = {"bq": ReducedTable, "direct": DirectTable}
REWARDS = ("dense", "sparse")
TOLERANCE = 1e-6  # by which a capacity or a length may be exceeded: float32 rounds sums
_OPTIONS = ("instance", "reference")


class State(NamedTuple):
    """A partial solution in each row of a batch.

    Attributes:
        key: [B, 2] int64 random key.
        t: [B] int64 number of steps taken.
        rows: the table of nodes.
        amount: [B] float64 what remains of the capacity or the length allowed; 0 where a task has none.
        allowed: [B, A] bool the actions that are allowed, all of them once the solution is complete.
        is_over: [B] bool nothing is left to choose.
        cost: [B] float64 what the solution costs so far, in units of the instance.
        instance: the instance, see `instances`.
    """

    key: Tensor
    t: Tensor
    rows: Any
    amount: Tensor
    allowed: Tensor
    is_over: Tensor
    cost: Tensor
    instance: Any


class Move(NamedTuple):
    """What an action does.

    Attributes:
        rows: the table after it.
        amount: [B] float64 what remains.
        allowed: [B, A] bool.
        is_over: [B] bool.
        change: [B] float64 what it costs, in units of the instance.
    """

    rows: Any
    amount: Tensor
    allowed: Tensor
    is_over: Tensor
    change: Tensor


def nearest_entry(table: dict[int, float], size: int) -> float:
    """Return the entry of the size nearest to `size`."""
    return table[min(table, key=lambda known: abs(known - size))]


class ConstructionTask(TensorEnv):
    """A task in which a solution is built node by node; a problem derives from it and says what a move does.

    The interface for code that works on tensors: `generate(keys)` draws an instance for each key, `begin(keys,
    instance)` starts there, `step`, `observe`, `mask`, `info` go on; `action_of(state, node)` finds an action.

    Attributes:
        num_points: most nodes N of an instance, with a depot.
        mdp: "bq" or "direct".
        reward: "dense" or "sparse".
        table: the transitions of the table of nodes.
        features: names of the columns of `nodes`.
        has_route: a route leads from node 0 back to it.
        actions_per_row: number of actions for each row of the table.
        size_name: option that says how many nodes there are.
        allows_all_open: every open row is allowed, so that the allowed rows of the reduced table are the first ones.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array", "ansi"], "render_fps": 4}
    features: ClassVar[tuple[str, ...]] = ("x", "y")
    has_route: ClassVar[bool] = True
    actions_per_row: ClassVar[int] = 1
    size_name: ClassVar[str] = "num_nodes"
    allows_all_open: ClassVar[bool] = False

    def __init__(
        self, num_points: int, mdp: str, reward: str, device: torch.device | str, dtype: torch.dtype | str
    ) -> None:
        super().__init__(device=device, dtype=dtype)
        check_choice("mdp", mdp, MDPS)
        check_choice("reward", reward, REWARDS)
        self.num_points, self.mdp, self.reward = num_points, mdp, reward
        self.table: Any = MDPS[mdp](num_points, self.has_route, self.device)
        self.is_dense = mdp == "bq" and self.allows_all_open
        self.most_open = num_points - 1 if self.has_route else num_points
        self.observation_space = spaces.Dict(self._spaces())
        self.action_space = spaces.Discrete(self.actions_per_row * self.table.num_rows)

    # ---- what a problem says

    def amount_limit(self) -> float | None:
        """Return the largest amount that may remain, in the units that are observed; None for a task without one."""
        return None

    def generate(self, keys: Tensor) -> Any:
        """Draw one instance for each key, [B, 2] int64; equal keys give equal instances in any batch, on any device."""
        raise NotImplementedError

    def read(self, given: Any, rows: int, reference: Any) -> Any:
        """Make `rows` instances of what a user gave; see the class of the problem.

        Raises:
            UsageError: the instance is malformed.
        """
        raise NotImplementedError

    def plain(self, instance: Any, i: int) -> dict[str, Any]:
        """Return instance i as a dict of float64 arrays without padding, as `reset(options={"instance": ...})` takes it.

        Coordinates are those of the unit square times the scale; capacities and weights are as they are observed.
        """
        raise NotImplementedError

    def first_allowed(self, rows: Any, instance: Any) -> tuple[Tensor, Tensor]:
        """Return the actions that are allowed at the start [B, A] bool, and whether there is none, [B] bool."""
        return self.open_or_over(rows)

    def move(self, state: State, action: Tensor) -> Move:
        """Return what an allowed action, [B] int64, does."""
        raise NotImplementedError

    def solution(self, state: State) -> Tensor:
        """Return the nodes chosen so far in order, [B, N] int64, -1 behind them; a route begins with node 0."""
        history: Tensor = self.table.history(state.rows, state.instance)
        if self.has_route:
            history = history.roll(1, dims=1)
            history[:, 0] = 0
        return history

    # ---- the interface of a task

    def _spaces(self) -> dict[str, gym.Space[Any]]:
        rows, limit = self.table.num_rows, self.amount_limit()
        high = np.array([1.0] if limit is None else [1.0, limit], self.numpy_dtype)
        fields: dict[str, gym.Space[Any]] = {
            "nodes": spaces.Box(0.0, 1.0, (rows, len(self.features)), self.numpy_dtype),
            "kind": spaces.Box(0, 3, (rows,), np.int8),
            "globals": spaces.Box(np.zeros_like(high), high, dtype=self.numpy_dtype),
        }
        if self.mdp == "direct":
            fields["visited"] = spaces.Box(0, 1, (rows,), np.int8)
            if self.has_route:
                fields["first"] = spaces.Box(0, rows - 1, (1,), np.int64)
                fields["last"] = spaces.Box(0, rows - 1, (1,), np.int64)
        return fields

    def reset(self, keys: Tensor, options: dict[str, Any] | None = None) -> State:
        """Start an episode for each key.

        Args:
            keys: [B, 2] int64 random keys.
            options: "instance" and "reference", see the class of the problem.

        Raises:
            UsageError: an option is unknown or malformed.
        """
        options = options or {}
        for name in options:
            if name not in _OPTIONS:
                raise unknown_name("reset option", str(name), _OPTIONS)
        given, reference = options.get("instance"), options.get("reference")
        if given is not None:
            return self.begin(keys, self.read(given, keys.shape[0], reference))
        if reference is not None:
            raise UsageError("the reset option 'reference' belongs to an 'instance'; give both")
        return self.begin(keys, self.generate(keys))

    def begin(self, keys: Tensor, instance: Any) -> State:
        """Start an episode for each key on an instance of its own."""
        rows = self.table.begin(instance)
        allowed, is_over = self.first_allowed(rows, instance)
        return State(
            key=keys,
            t=torch.zeros_like(instance.size),
            rows=rows,
            amount=instance.amount,
            allowed=allowed,
            is_over=is_over,
            cost=torch.zeros_like(instance.scale),
            instance=instance,
        )

    def step(self, state: State, action: Tensor) -> tuple[State, Tensor, Tensor]:
        """Choose a node.

        Args:
            state: the state before.
            action: [B] int64, must be allowed.

        Returns:
            The state after, the reward [B] float32 and terminated [B] bool.
        """
        rows, amount, allowed, is_over, change = self.move(state, action)
        after = state._replace(
            t=state.t + 1, rows=rows, amount=amount, allowed=allowed, is_over=is_over, cost=state.cost + change
        )
        cost = change if self.reward == "dense" else after.cost * is_over
        return after, -cost.to(torch.float32), is_over

    def observe(self, state: State, player: Tensor | None = None) -> dict[str, Tensor]:
        """Return the observation; see the class of the problem."""
        share = state.rows.num_open.to(self.dtype) / self.most_open
        if self.amount_limit() is None:
            entries = share.unsqueeze(1)
        else:
            entries = torch.stack((share, state.amount.clamp(min=0.0).to(self.dtype)), dim=1)
        return {"nodes": self.observed_nodes(state), **self.table.views(state.rows), "globals": entries}

    def observed_nodes(self, state: State) -> Tensor:
        """Return [B, R, F] the features of all rows."""
        nodes: Tensor = self.table.nodes(state.rows, state.instance)
        return nodes

    def mask(self, state: State, player: Tensor | None = None) -> Tensor:
        """Return [B, A] bool: the allowed actions, all of them once the solution is complete."""
        return state.allowed

    def info(self, state: State) -> dict[str, Tensor]:
        """Return "solution" [B, L] int64, "cost" and "gap" [B] float64 and "orig" [B, R] int32."""
        reference = state.instance.reference
        has_gap = state.is_over & ~reference.isnan()
        return {
            "solution": self.solution(state),
            "cost": state.cost,
            "gap": torch.where(has_gap, gap(state.cost, reference), torch.inf),
            "orig": self.table.numbers(state.rows, state.instance),
        }

    def action_of(self, state: State, node: Tensor) -> Tensor:
        """Return [B] int64 the action that chooses the open node number `node`, [B] int64."""
        row: Tensor = self.table.row_of(state.rows, node)
        return row

    def random_action(self, state: State, u: Tensor) -> Tensor:
        """Choose among the allowed actions, all with equal probability.

        Args:
            state: where the rows stand.
            u: [B] float, drawn uniformly from [0, 1).

        Returns:
            [B] int64 actions.
        """
        # u is below 1 by its last bit at least, so that its product with a count never rounds up to the count
        if self.is_dense:
            return (u * state.rows.num_open).long() + self.table.first_open
        # short integers halve the time of the sums
        dtype = torch.int16 if state.allowed.shape[1] < 2**15 else torch.int32
        rank = state.allowed.cumsum(1, dtype=dtype)
        wanted = (u * rank[:, -1]).to(dtype).add_(1)
        return torch.searchsorted(rank, wanted.unsqueeze(1)).squeeze(1)

    def render_text(self, state: State, i: int) -> str:
        """Write the solution of row i, complete or not, as a line of text."""
        return " - ".join(map(str, self._row_solution(state, i))) + f"   cost {float(state.cost[i]):.6f}"

    def _row_solution(self, state: State, i: int) -> Sequence[int]:
        solution = self.solution(state)[i]
        numbers: list[int] = solution[solution >= 0].tolist()
        return numbers

    def _plain_nodes(self, instance: Any, i: int) -> tuple[np.ndarray, float]:
        """Return the features [m, F] float64 of instance i and what 1 is worth."""
        nodes = instance.nodes[i, : int(instance.size[i])].double().cpu().numpy()
        return nodes, float(instance.scale[i])

    # ---- moves that several problems have

    def open_or_over(self, rows: ReducedRows | DirectRows) -> tuple[Tensor, Tensor]:
        """Return the open rows [B, R] bool, all of them where none is left, and whether none is left, [B] bool."""
        is_over = rows.num_open == 0
        if self.mdp == "bq":
            masks: Tensor = self.table.masks
            return masks.index_select(0, rows.num_open), is_over
        reachable: Tensor = self.table.is_open(rows)
        return reachable | spread(is_over, reachable), is_over

    def all_if_none(self, within: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows [B, R] bool, all of them where there is none, and whether there is none, [B] bool."""
        # sums are several times faster than `any`
        is_over = within.sum(1, dtype=torch.int32) == 0
        return within | spread(is_over, within), is_over
