"""What gradient steps of agents with an ensemble of critics have in common, in memory that is allocated once."""

from __future__ import annotations

import torch
from torch import Tensor

from polyathlon.agents.parts.flat_adam import FlatAdam
from polyathlon.agents.parts.products import hidden_memory

from .perceptrons import Layer, backward, forward, input_slope, layers_of


class GradientStep:
    """Base of gradient steps: the batch size that the memory is made for, and sums of what is logged.

    Attributes:
        metrics: sums of `metric_names` over `count` steps.
    """

    metric_names: tuple[str, ...] = ()

    def __init__(self, batch_size: int, like: Tensor) -> None:
        self.batch_size = batch_size
        self.metrics = like.new_zeros(len(self.metric_names))
        self.count = 0

    def _record(self, *metrics: Tensor) -> None:
        """Add the metrics of a step, in the order of `metric_names`."""
        self.metrics += torch.stack([x.reshape(()) for x in metrics])
        self.count += 1

    def report(self) -> dict[str, float]:
        """Return the means of `metric_names` since the last call."""
        means = (self.metrics / max(self.count, 1)).tolist()
        self.metrics.zero_()
        self.count = 0
        return dict(zip(self.metric_names, means, strict=True))


class CriticsUpdate(GradientStep):
    """Values, regression and action derivatives of critics Q(s, a).

    Args:
        critic: optimiser over the flat parameters of the critics, one after the other.
        target: [P] flat parameters of the target critics.
        obs_size: O.
        action_size: A.
        critic_widths: hidden widths of a critic.
        critics: number of critics.
        batch_size: B.
        dtype: in which hidden layers are kept and multiplied; see `hidden_dtype`.

    Attributes:
        critics: layers of the critics, with gradients.
        plain_critics: the same without.
        targets: layers of the target critics.
        inputs: [B, O + A] memory for states and actions.
        q: [B, critics] memory for values.
    """

    metric_names: tuple[str, ...] = ("critic_loss",)

    def __init__(
        self,
        critic: FlatAdam,
        target: Tensor,
        obs_size: int,
        action_size: int,
        critic_widths: list[int],
        critics: int,
        batch_size: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(batch_size, critic.gradient)
        self.critic, self.target = critic, target
        self.obs_size, self.action_size = obs_size, action_size
        self.critics: list[list[Layer]] = []
        self.plain_critics: list[list[Layer]] = []
        self.targets: list[list[Layer]] = []
        start, sizes = 0, [obs_size + action_size, *critic_widths, 1]
        for _ in range(critics):
            self.plain_critics.append(layers_of(critic.vector.data, None, sizes, start)[0])
            self.targets.append(layers_of(target, None, sizes, start)[0])
            layers, start = layers_of(critic.vector.data, critic.gradient, sizes, start)
            self.critics.append(layers)
        empty = critic.vector.new_empty
        hidden = [hidden_memory(target, batch_size, critic_widths, dtype) for _ in range(critics + 1)]
        self.outs = [[*layers, empty(batch_size, 1)] for layers in hidden[1:]]
        self.slopes = hidden[0]
        self.inputs = empty(batch_size, obs_size + action_size)
        self.q = empty(batch_size, critics)
        self.ones = torch.ones_like(self.q[:, :1])
        # on an accelerator, and in bfloat16, gathers cost more than the products that they save
        self.is_grouped = self.q.device.type == "cpu" and dtype is torch.float32
        self.by_action = empty(batch_size, action_size)

    def _values(self, critics: list[list[Layer]], inputs: Tensor, keep: bool = True) -> Tensor:
        """Values [B, critics]; `keep` leaves what each critic's layers gave in `outs`, for derivatives."""
        for i, layers in enumerate(critics):
            # one memory for all stays in the processor's cache
            self.q[:, i] = forward(layers, inputs, self.outs[i if keep else 0])[:, 0]
        return self.q

    def _critic_step(self, inputs: Tensor, y: Tensor, learning_rate: float) -> Tensor:
        """Regress the critics on targets [B] by half the squared error, and return the loss []; `q` holds their values."""
        outs = self.outs[0]
        for i, layers in enumerate(self.critics):
            self.q[:, i] = forward(layers, inputs, outs)[:, 0]
            slope = (self.q[:, i : i + 1] - y[:, None]).div_(self.batch_size)
            backward(layers, inputs, outs, slope, self.slopes)
        self.critic.clipped_step(learning_rate, None)
        return 0.5 * (self.q - y[:, None]).square().mean(0).sum()

    def _action_slope(self, chosen: Tensor) -> Tensor:
        """Derivative [B, A] of each row's chosen critic by the action; `_values` of `plain_critics` went before."""
        for i, layers in enumerate(self.plain_critics):
            if self.is_grouped:
                # each row needs one critic only: the rows of a critic are brought together
                rows = (chosen == i).nonzero()[:, 0]
                number = rows.numel()
                outs = [out.index_select(0, rows) for out in self.outs[i][:-1]]
                slopes = [x[:number] for x in self.slopes]
                self.by_action[rows] = input_slope(layers, outs, self.ones[:number], slopes, self.obs_size)
            else:
                slope = (chosen == i).to(self.q.dtype)[:, None]
                part = input_slope(layers, self.outs[i], slope, self.slopes, self.obs_size)
                self.by_action = part if i == 0 else self.by_action.add_(part)
        return self.by_action
