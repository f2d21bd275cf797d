"""Several actions of each state valued by all critics, and the derivatives by some of the actions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from polyathlon.agents.parts.products import addmm_, hidden_memory

from .perceptrons import Layer, forward, input_slope

ROWS_AT_ONCE = 32


class Best(NamedTuple):
    """The best action of each state: which one it is [B] int64, its value [B], and the value's derivative by it [B, A]."""

    number: Tensor
    value: Tensor
    by_action: Tensor


class ActionValues:
    """Values of M actions for each of B states, in memory that is allocated once.

    The value of an action is the lowest of all critics. All actions go through a critic as one product, and what the
    first layer makes of a state is computed once for its M actions. Row b M + m is action m of state b.

    Args:
        critics: layers of each critic, which reads a state and an action side by side.
        obs_size: O.
        batch_size: B.
        actions: M, the number of actions of a state.
        most: largest number of rows that `slopes` is asked about; None is B.
        dtype: in which hidden layers are kept and multiplied.
    """

    def __init__(
        self,
        critics: list[list[Layer]],
        obs_size: int,
        batch_size: int,
        actions: int,
        most: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.critics, self.obs_size, self.batch_size, self.actions = critics, obs_size, batch_size, actions
        rows, most = batch_size * actions, most or batch_size
        self.is_low = dtype is not torch.float32
        widths = [layer.bias.numel() for layer in critics[0]]
        first = critics[0][0].weight
        empty, device = first.new_empty, first.device
        self.plain_critics = [[Layer(x.weight, x.bias, None, None) for x in layers] for layers in critics]
        hidden = [hidden_memory(first, rows, widths[:-1], dtype) for _ in critics]
        self.outs = [[*layers, empty(rows, 1)] for layers in hidden]
        self.by_state = self.outs[0][0].new_empty(len(critics), batch_size, widths[0])
        self.picked = [x.new_empty(most, x.shape[1]) for x in hidden[0]]
        self.hidden_slopes = [torch.empty_like(x) for x in self.picked]
        self.by_action = empty(most, first.shape[1] - obs_size)
        self.ordered = empty(batch_size, first.shape[1] - obs_size)
        self.q = empty(rows, len(critics))
        self.bound, self.second = empty(batch_size, actions), empty(batch_size)
        self.row = torch.arange(batch_size, device=device)
        # on an accelerator the gathers of the lazy way cost more than the products that it saves, and in bfloat16 so does
        # what a product of a number of rows not met before prepares
        self.is_lazy = len(critics) == 2 and actions > 1 and device.type == "cpu" and not self.is_low
        self.valued = 0

    def values(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return [B M, critics] the values of actions [B, M, A] in states [B, O]."""
        self._read_states(obs)
        for i in range(len(self.critics)):
            self.q[:, i] = self._value_all(i, 0, self.batch_size, action)
        self.valued = self.q.numel()
        return self.q

    def best(self, obs: Tensor, action: Tensor, likely: Tensor) -> Best:
        """Find the best of the actions [B, M, A] of each state [B, O].

        With two critics on a CPU, each state asks one critic about all its actions, which bounds their values from above, and
        the other one about the best of them. Where that leaves the best one's value above all other bounds, it is
        the best; else the other critic is asked about those that may still be better. The answer is that of `values`.

        Args:
            obs: [B, O].
            action: [B, M, A].
            likely: [B] int64, the critic to ask first; the more often it is the lower one, the less work.
        """
        if self.is_lazy:
            return self._best_lazily(obs, action, likely)
        lowest, critic = self.values(obs, action).min(1)
        value, index = lowest.view(-1, self.actions).max(1)
        rows = self.row * self.actions + index
        return Best(index, value, self.slopes(rows, critic[rows]))

    def slopes(self, rows: Tensor, critic: Tensor) -> Tensor:
        """Differentiate the last `values` by their actions.

        Args:
            rows: [R] int64, which rows.
            critic: [R] int64, which critic is meant in each.

        Returns:
            [R, A]; used again by the next call.
        """
        by_action = self.by_action[: rows.numel()]
        for i in range(len(self.critics)):
            # each row needs one critic only: the rows of a critic are brought together
            mine = (critic == i).nonzero()[:, 0]
            by_action[mine] = self._slopes_of(i, rows[mine])
        return by_action

    def _slopes_of(self, critic: int, place: Tensor) -> Tensor:
        """Derivatives [R, A] of what one critic said in rows `place` [R] of its memory."""
        layers, wanted = self.plain_critics[critic], place.numel()
        if self.is_low:  # to one of a few numbers of rows
            place = torch.cat([place, place.new_zeros(min(-wanted % ROWS_AT_ONCE, len(self.picked[0]) - wanted))])
        number = place.numel()
        hidden = [x[:number] for x in self.picked]
        for full, part in zip(self.outs[critic], hidden):
            torch.index_select(full, 0, place, out=part)
        slope = self.q.new_ones(number, 1)
        return input_slope(layers, hidden, slope, [x[:number] for x in self.hidden_slopes], self.obs_size)[:wanted]

    def _read_states(self, obs: Tensor) -> None:
        for out, layers in zip(self.by_state, self.critics):
            addmm_(layers[0].bias, obs, layers[0].weight[:, : self.obs_size].t(), out)

    def _value_all(self, critic: int, start: int, stop: int, action: Tensor) -> Tensor:
        """Values [(stop - start) M] of all actions of states `start` to `stop`, into the first rows of the critic's memory."""
        rows = (stop - start) * self.actions
        out = self.outs[critic][0][:rows]
        out.view(stop - start, self.actions, out.shape[1]).copy_(self.by_state[critic][start:stop].unsqueeze(1))
        weight = self.critics[critic][0].weight[:, self.obs_size :]
        out.addmm_(action[start:stop].flatten(0, 1).to(out.dtype), weight.t().to(out.dtype))
        return self._value_on(critic, 0, rows)

    def _value_one(self, critic: int, place: int, by_state: Tensor, action: Tensor) -> Tensor:
        """Values [R] of one action [R, A] of each state, read as [R, width], into rows `place` on of the critic's memory."""
        stop = place + action.shape[0]
        weight = self.critics[critic][0].weight[:, self.obs_size :]
        addmm_(by_state, action, weight.t(), self.outs[critic][0][place:stop])
        return self._value_on(critic, place, stop)

    def _value_on(self, critic: int, start: int, stop: int) -> Tensor:
        """Finish rows of a critic's memory whose first layer is filled."""
        rest, outs = self.critics[critic][1:], [x[start:stop] for x in self.outs[critic]]
        last = forward(rest, outs[0].relu_(), outs[1:]) if rest else outs[0]
        return last[:, 0]

    def _best_lazily(self, obs: Tensor, action: Tensor, likely: Tensor) -> Best:
        """See `best`; states are put in order, first those that ask critic 0 first."""
        batch, many = self.batch_size, self.actions
        order = torch.argsort(likely, stable=True)
        middle = batch - int(likely.sum())
        obs, action = obs.index_select(0, order), action.index_select(0, order)
        self._read_states(obs)
        own = ((0, middle), (middle, batch))
        bound, second = self.bound, self.second
        for i, (start, stop) in enumerate(own):
            bound[start:stop] = self._value_all(i, start, stop, action).view(stop - start, many)
        value, index = bound.max(1)
        first = action[self.row, index]
        # rows of a critic's memory: all actions of its own states, then one of each other state, then the rivals
        ends = [middle * many, (batch - middle) * many]
        place = torch.empty(batch, dtype=torch.long, device=order.device)
        for i, (start, stop) in ((1, own[0]), (0, own[1])):
            second[start:stop] = self._value_one(i, ends[i], self.by_state[i][start:stop], first[start:stop])
            place[start:stop] = self.row[: stop - start] + ends[i]
            ends[i] += stop - start
        is_second = second < value
        value = torch.minimum(value, second)
        bound[self.row, index] = value
        state, rival = (bound > value[:, None]).nonzero(as_tuple=True)
        self.valued = sum(ends) + state.numel()
        if state.numel():
            place, is_second, index, value = self._rivals(action, (state, rival), middle, ends, place, is_second, index)
        critic = (self.row >= middle) ^ is_second
        at_first = (self.row - middle * (self.row >= middle)) * many + index
        place = torch.where(is_second, place, at_first)
        return self._in_given_order(order, index, value, place, critic)

    def _rivals(
        self,
        action: Tensor,
        pairs: tuple[Tensor, Tensor],
        middle: int,
        ends: list[int],
        place: Tensor,
        is_second: Tensor,
        index: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Ask the other critic about actions that may still be the best; return place, is_second, index and value anew."""
        state, rival = pairs
        number, bound = state.numel(), self.bound
        asks_first = int((state < middle).sum())
        found, places = bound.new_empty(number), torch.empty_like(state)
        for i, part in ((1, slice(0, asks_first)), (0, slice(asks_first, number))):
            mine = state[part]
            found[part] = self._value_one(i, ends[i], self.by_state[i].index_select(0, mine), action[mine, rival[part]])
            places[part] = torch.arange(ends[i], ends[i] + mine.numel(), device=state.device)
        before = bound[state, rival]
        bound[state, rival] = torch.minimum(found, before)
        value, best = bound.max(1)
        # the pair that became the best of its state, if one did
        changed = (best[state] == rival).nonzero()[:, 0]
        rows = state[changed]
        place[rows] = places[changed]
        is_second[rows] = (found < before)[changed]
        return place, is_second, best, value

    def _in_given_order(self, order: Tensor, index: Tensor, value: Tensor, place: Tensor, critic: Tensor) -> Best:
        for i in range(2):
            mine = (critic == bool(i)).nonzero()[:, 0]
            self.ordered[order[mine]] = self._slopes_of(i, place[mine])
        back = torch.argsort(order)
        return Best(index[back], value[back], self.ordered)
