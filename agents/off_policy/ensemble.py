"""An ensemble of critics as one network: every layer is one batched product over all members."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polyathlon.agents.parts.flat_adam import section
from polyathlon.envs.errors import UsageError

LAYER_NORM_EPS = 1e-6


class CriticEnsemble(nn.Module):
    """E perceptrons Q_i(s, a) with rectified hidden layers, each normalised before it is rectified (RLPD, Ball et al. 2023).

    Each layer's weights [E, in, out], biases, scales and shifts [E, 1, out] hold all members. Weights start by Glorot's
    uniform rule.

    Args:
        in_size: O + A.
        widths: hidden widths.
        num_critics: number of members E.
        layer_norm: normalise hidden layers.

    Raises:
        UsageError: there is no hidden layer, or no member.
    """

    optimizer: torch.optim.Optimizer

    def __init__(self, in_size: int, widths: Sequence[int], num_critics: int, layer_norm: bool = True) -> None:
        super().__init__()
        if not widths or num_critics < 1:
            raise UsageError(
                f"an ensemble needs at least one hidden layer and one critic, got {list(widths)}, {num_critics}"
            )
        self.in_size, self.widths, self.num_critics, self.layer_norm = in_size, list(widths), num_critics, layer_norm
        before = in_size
        for i, width in enumerate([*widths, 1]):
            weight = torch.empty(num_critics, before, width)
            bound = math.sqrt(6 / (before + width))
            self.register_parameter(f"weight_{i}", nn.Parameter(weight.uniform_(-bound, bound)))
            self.register_parameter(f"bias_{i}", nn.Parameter(torch.zeros(num_critics, 1, width)))
            if layer_norm and i < len(widths):
                self.register_parameter(f"scale_{i}", nn.Parameter(torch.ones(num_critics, 1, width)))
                self.register_parameter(f"shift_{i}", nn.Parameter(torch.zeros(num_critics, 1, width)))
            before = width

    def set_training_mode(self, mode: bool) -> None:
        """Set torch's training mode, as SB3 asks its networks to; nothing depends on it."""
        self.train(mode)

    def values(self, obs_action: Tensor) -> Tensor:
        """Return [E, B] the values of [B, O + A]; differentiable."""
        x = obs_action.expand(self.num_critics, *obs_action.shape)
        for i in range(len(self.widths)):
            x = torch.baddbmm(self._get(f"bias_{i}"), x, self._get(f"weight_{i}"))
            if self.layer_norm:
                x = nn.functional.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS)
                x = torch.addcmul(self._get(f"shift_{i}"), x, self._get(f"scale_{i}"))
            x = x.relu()
        last = len(self.widths)
        return torch.baddbmm(self._get(f"bias_{last}"), x, self._get(f"weight_{last}")).squeeze(-1)

    def _get(self, name: str) -> Tensor:
        parameter: Tensor = getattr(self, name)
        return parameter

    def forward(self, obs: Tensor, action: Tensor) -> tuple[Tensor, ...]:
        """Return E values [B, 1] of observations [B, ...] and actions [B, ...] in [-1, 1], as SB3's critics do."""
        pair = torch.cat([obs.flatten(1).float(), action.flatten(1).to(torch.float32)], 1)
        return tuple(self.values(pair).unsqueeze(-1))


class EnsembleLayers:
    """The layers of some or all members as views of a flat vector laid out as `CriticEnsemble`'s parameters.

    Args:
        vector: [P] parameters, or their gradients.
        critic: tells the shapes.
    """

    def __init__(self, vector: Tensor, critic: CriticEnsemble) -> None:
        self.weight: list[Tensor] = []
        self.bias: list[Tensor] = []
        self.scale: list[Tensor] = []
        self.shift: list[Tensor] = []
        start = 0
        for name, parameter in critic.named_parameters():
            view, start = section(vector, start, tuple(parameter.shape))
            getattr(self, name.partition("_")[0]).append(view)
        if start != vector.numel():
            raise ValueError(f"the vector holds {vector.numel()} numbers, the ensemble {start}")

    def members(self, index: Tensor, dtype: torch.dtype) -> EnsembleLayers:
        """Return copies of the chosen members' layers in another type, but for the last one's; index [M] int64."""
        chosen = object.__new__(EnsembleLayers)
        for name in ("weight", "bias", "scale", "shift"):
            setattr(chosen, name, [view.index_select(0, index).to(dtype) for view in getattr(self, name)])
        chosen.weight[-1], chosen.bias[-1] = (x[-1].index_select(0, index) for x in (self.weight, self.bias))
        return chosen


class EnsemblePass:
    """Forward and backward passes of M members on B rows, in memory that is allocated once.

    With `dtype=torch.bfloat16` the products take bfloat16 numbers (and add them up in float32 inside); parameters,
    gradients, values and normalisation statistics stay what they are.

    Args:
        critic: tells the shapes.
        members: number of members M.
        rows: number of rows B.
        device: where the buffers lie.
        dtype: type of the products.
    """

    def __init__(
        self, critic: CriticEnsemble, members: int, rows: int, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        def empty(*shape: int, kind: torch.dtype = dtype) -> Tensor:
            return torch.empty(*shape, device=device, dtype=kind)

        self.rows, self.dtype, self.layer_norm = rows, dtype, critic.layer_norm
        self.inputs = empty(rows, critic.in_size)
        self.shared = self.inputs.expand(members, rows, critic.in_size)
        widths = critic.widths
        self.hidden = [empty(members, rows, width) for width in widths]
        self.slopes = [empty(members, rows, width) for width in widths]
        self.scratch = [empty(members, rows, width) for width in widths]
        # normalisation allocates these itself: its variant with an output given copies them there
        self.raw: list[Tensor] = [empty(members, rows, width) for width in widths]
        self.normal: list[Tensor] = list(self.raw)
        self.statistics: list[tuple[Tensor, Tensor]] = [(self.inputs, self.inputs)] * len(widths)
        self.products = empty(members, rows, widths[-1], kind=torch.float32)

    def forward(self, layers: EnsembleLayers) -> Tensor:
        """Return the values [M, B] in float32 of what lies in `inputs` [B, O + A]."""
        x = self.shared
        for i, hidden in enumerate(self.hidden):
            if self.layer_norm:
                raw = torch.baddbmm(layers.bias[i], x, layers.weight[i], out=self.raw[i])
                self.normal[i], *statistics = torch.native_layer_norm(raw, raw.shape[-1:], None, None, LAYER_NORM_EPS)
                self.statistics[i] = (statistics[0], statistics[1])
                torch.addcmul(layers.shift[i], self.normal[i], layers.scale[i], out=hidden)
            else:
                torch.baddbmm(layers.bias[i], x, layers.weight[i], out=hidden)
            x = hidden.relu_()
        # one output: multiplying and adding up is faster than a batched product of matrices with one column
        torch.mul(x, layers.weight[-1].transpose(1, 2), out=self.products)
        return self.products.sum(2) + layers.bias[-1].squeeze(2)

    def backward(self, layers: EnsembleLayers, slope: Tensor, gradients: EnsembleLayers | None) -> Tensor:
        """Back-propagate through what `forward` did last.

        Args:
            layers: the ones that `forward` was given.
            slope: [M, B] derivative by the values, float32.
            gradients: where the derivatives by the parameters go; None wants none.

        Returns:
            The derivative [M, B, width] by the first layer's sums.
        """
        column = slope.unsqueeze(2)
        if gradients is not None:
            torch.mul(self.hidden[-1], column, out=self.products)
            gradients.weight[-1].copy_(self.products.sum(1).unsqueeze(2))
            gradients.bias[-1].copy_(column.sum(1, keepdim=True))
        torch.mul(column.to(self.dtype), layers.weight[-1].transpose(1, 2), out=self.slopes[-1])
        for i in range(len(self.hidden) - 1, -1, -1):
            slope = self._through_normalisation(i, layers, gradients)
            if gradients is not None:
                below = self.hidden[i - 1] if i else self.shared
                torch.bmm(below.transpose(1, 2), slope, out=gradients.weight[i])
                torch.sum(slope, 1, keepdim=True, out=gradients.bias[i])
            if i:
                torch.bmm(slope, layers.weight[i].transpose(1, 2), out=self.slopes[i - 1])
        return slope

    def _through_normalisation(self, i: int, layers: EnsembleLayers, gradients: EnsembleLayers | None) -> Tensor:
        """Return the derivative by the sums of layer i from that by what it gave, which lies in `slopes`."""
        slope = self.slopes[i]
        torch.ops.aten.threshold_backward.grad_input(slope, self.hidden[i], 0, grad_input=slope)
        if not self.layer_norm:
            return slope
        if gradients is not None:
            torch.mul(slope, self.normal[i], out=self.scratch[i])
            torch.sum(self.scratch[i], 1, keepdim=True, out=gradients.scale[i])
            torch.sum(slope, 1, keepdim=True, out=gradients.shift[i])
        torch.mul(slope, layers.scale[i], out=self.scratch[i])
        found: Tensor = torch.ops.aten.native_layer_norm_backward(
            self.scratch[i], self.raw[i], self.raw[i].shape[-1:], *self.statistics[i], None, None, [True, False, False]
        )[0]
        return found
