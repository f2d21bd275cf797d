"""Several actions of each state valued by all critics, and the derivatives by some of the actions."""

from __future__ import annotations

import torch
from torch import Tensor

from .perceptrons import Layer, backward, forward


class ActionValues:
    """Values of M actions for each of B states, in memory that is allocated once.

    All actions go through a critic as one product, and what the first layer makes of a state is computed once for its M
    actions. Row b M + m is action m of state b.

    Args:
        critics: layers of each critic, which reads a state and an action side by side.
        obs_size: O.
        batch_size: B.
        actions: M, the number of actions of a state.
        most: largest number of rows that `slopes` is asked about; None is B.
    """

    def __init__(
        self, critics: list[list[Layer]], obs_size: int, batch_size: int, actions: int, most: int | None = None
    ) -> None:
        self.critics, self.obs_size, self.batch_size, self.actions = critics, obs_size, batch_size, actions
        rows, most = batch_size * actions, most or batch_size
        widths = [layer.bias.numel() for layer in critics[0]]
        first = critics[0][0].weight
        empty, device = first.new_empty, first.device
        self.plain_critics = [[Layer(x.weight, x.bias, None, None) for x in layers] for layers in critics]
        self.by_state = empty(len(critics), batch_size, widths[0])
        self.outs = [[empty(rows, width) for width in widths] for _ in critics]
        self.picked = [empty(most, width) for width in widths[:-1]]
        self.hidden_slopes = [empty(most, width) for width in widths[:-1]]
        self.by_action = empty(most, first.shape[1] - obs_size)
        self.q = empty(rows, len(critics))
        self.row, self.action_row = (torch.arange(n, device=device) for n in (rows, actions))
        # where in `outs` of a critic the row stands
        self.place = torch.zeros(rows, len(critics), dtype=torch.long, device=device)
        self.filled = [0] * len(critics)

    def values(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return [B M, critics] the values of actions [B, M, A] in states [B, O]."""
        self._start(obs, action)
        for i in range(len(self.critics)):
            self.q[:, i] = self._evaluate(i, self.row)
        return self.q

    def best(self, obs: Tensor, action: Tensor, likely: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find the action with the largest value, the value being the lowest of all critics.

        The values are bounded first by one critic: where another one does not lower the best action's bound, that
        action is the best. So most actions are seen by one critic only; the answer is that of `values`.

        Args:
            obs: [B, O].
            action: [B, M, A].
            likely: [B] int64, the critic that each state asks first; the closer to the lowest one, the less work.

        Returns:
            The best action [B] int64, its value [B], and the critic [B] int64 that gives it.
        """
        self._start(obs, action)
        bound, lowest = self.q[:, 0], likely.repeat_interleave(self.actions)
        for i in range(len(self.critics)):
            mine = (likely == i).nonzero()
            rows = (mine * self.actions + self.action_row).flatten()
            bound[rows] = self._evaluate(i, rows)
        state = self.row[: self.batch_size] * self.actions
        first = state + bound.view(-1, self.actions).argmax(1)
        self._lower(bound, lowest, likely, first)
        value = bound[first]
        rivals = (bound.view(-1, self.actions) > value[:, None]).flatten().nonzero()[:, 0]
        self._lower(bound, lowest, likely, rivals)
        best = bound.view(-1, self.actions).argmax(1)
        rows = state + best
        return best, bound[rows], lowest[rows]

    def _lower(self, bound: Tensor, lowest: Tensor, likely: Tensor, rows: Tensor) -> None:
        """Let the critics that have not seen the rows lower their bounds."""
        asked = likely[rows // self.actions]
        for i in range(len(self.critics)):
            mine = rows[asked != i]
            value, before = self._evaluate(i, mine), bound[mine]
            bound[mine] = torch.minimum(value, before)
            lowest[mine] = torch.where(value < before, i, lowest[mine])

    def _start(self, obs: Tensor, action: Tensor) -> None:
        self.action = action.flatten(0, 1)
        self.filled = [0] * len(self.critics)
        for out, layers in zip(self.by_state, self.critics):
            torch.addmm(layers[0].bias, obs, layers[0].weight[:, : self.obs_size].t(), out=out)

    def _evaluate(self, critic: int, rows: Tensor) -> Tensor:
        """Return the values [R] that one critic gives to rows [R]."""
        layers, start = self.critics[critic], self.filled[critic]
        stop = self.filled[critic] = start + rows.numel()
        outs = [x[start:stop] for x in self.outs[critic]]
        torch.index_select(self.by_state[critic], 0, rows // self.actions, out=outs[0])
        outs[0].addmm_(self.action.index_select(0, rows), layers[0].weight[:, self.obs_size :].t())
        self.place[rows, critic] = self.row[start:stop]
        last = forward(layers[1:], outs[0].relu_(), outs[1:]) if layers[1:] else outs[0]
        return last[:, 0]

    def slopes(self, rows: Tensor, critic: Tensor) -> Tensor:
        """Differentiate values by their actions.

        Args:
            rows: [R] int64, which rows.
            critic: [R] int64, which critic is meant in each; it has valued the row since the last start.

        Returns:
            [R, A]; used again by the next call.
        """
        by_action = self.by_action[: rows.numel()]
        for i, layers in enumerate(self.plain_critics):
            # each row needs one critic only: the rows of a critic are brought together
            mine = (critic == i).nonzero()[:, 0]
            number = mine.numel()
            place = self.place[rows[mine], i]
            hidden = [x[:number] for x in self.picked]
            for full, part in zip(self.outs[i], hidden):
                torch.index_select(full, 0, place, out=part)
            slope = by_action.new_ones(number, 1)
            first = backward(layers, slope, hidden, slope, [x[:number] for x in self.hidden_slopes])
            # a product with few columns is several times slower than with few rows
            by_action[mine] = (layers[0].weight[:, self.obs_size :].t() @ first.t()).t()
        return by_action
