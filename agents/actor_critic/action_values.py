"""Several actions of each state valued at once by all critics, and the derivatives by some of the actions."""

from __future__ import annotations

import torch
from torch import Tensor

from .sac_update import Layer, backward, forward


class ActionValues:
    """Values of M actions for each of B states, in memory that is allocated once.

    All B M rows go through a critic as one product; what the first layer makes of a state is computed once for its
    M actions.

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
        empty = critics[0][0].weight.new_empty
        self.inputs = empty(rows, critics[0][0].weight.shape[1])
        self.by_state = empty(batch_size, 1, widths[0])
        self.outs = [[empty(rows, width) for width in widths] for _ in critics]
        self.picked = [empty(most, width) for width in widths[:-1]]
        self.hidden_slopes = [empty(most, width) for width in widths[:-1]]
        self.by_action = empty(most, self.inputs.shape[1] - obs_size)
        self.q = empty(rows, len(critics))

    def values(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return [B M, critics] the values of actions [B, M, A] in states [B, O]; row b M + m is action m of state b."""
        for i, layers in enumerate(self.critics):
            outs, rest = self.outs[i], layers[1:]
            self._first_layer(layers[0], outs[0], obs, action)
            last = forward(rest, outs[0].relu_(), outs[1:]) if rest else outs[0]
            self.q[:, i] = last[:, 0]
        return self.q

    def _first_layer(self, layer: Layer, out: Tensor, obs: Tensor, action: Tensor) -> None:
        size = self.obs_size
        if self.actions == 1:
            self.inputs[:, :size], self.inputs[:, size:] = obs, action[:, 0]
            torch.addmm(layer.bias, self.inputs, layer.weight.t(), out=out)
            return
        torch.addmm(layer.bias, obs, layer.weight[:, :size].t(), out=self.by_state[:, 0])
        out.view(self.batch_size, self.actions, -1).copy_(self.by_state)
        out.addmm_(action.flatten(0, 1), layer.weight[:, size:].t())

    def slopes(self, rows: Tensor, critic: Tensor) -> Tensor:
        """Differentiate some of the last values by their actions.

        Args:
            rows: [R] int64, which rows of the last `values`.
            critic: [R] int64, which critic is meant in each.

        Returns:
            [R, A]; used again by the next call.
        """
        by_action = self.by_action[: rows.numel()]
        for i, layers in enumerate(self.critics):
            # each row needs one critic only: the rows of a critic are brought together
            mine = (critic == i).nonzero()[:, 0]
            number = mine.numel()
            hidden = [x[:number] for x in self.picked]
            for full, part in zip(self.outs[i], hidden):
                torch.index_select(full, 0, rows[mine], out=part)
            slope = by_action.new_ones(number, 1)
            memory = [x[:number] for x in self.hidden_slopes]
            first = backward([Layer(x.weight, x.bias, None, None) for x in layers], slope, hidden, slope, memory)
            by_action[mine] = first @ layers[0].weight[:, self.obs_size :]
        return by_action
