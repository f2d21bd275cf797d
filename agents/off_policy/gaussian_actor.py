"""A squashed Gaussian perceptron with the derivatives of its loss written out."""

from __future__ import annotations

from torch import Tensor

from polyathlon.agents.parts.flat_adam import FlatAdam
from polyathlon.agents.parts.squashed_gaussian import SAC_LOG_STD_MAX, SAC_LOG_STD_MIN, tanh_gaussian

from .perceptrons import backward, forward, layers_of


class GaussianActor:
    """Samples, and gradient steps, of an actor laid out by `flatten_actor`.

    Args:
        optimizer: holds the flat parameters.
        in_size: size of the input.
        widths: hidden widths.
        action_size: A.
        rows: rows B of a gradient step.
    """

    def __init__(self, optimizer: FlatAdam, in_size: int, widths: list[int], action_size: int, rows: int) -> None:
        self.optimizer, self.action_size, self.rows = optimizer, action_size, rows
        sizes = [in_size, *widths, 2 * action_size]
        self.layers, end = layers_of(optimizer.vector.data, optimizer.gradient, sizes)
        assert end == optimizer.vector.numel()
        self._outs: dict[int, list[Tensor]] = {}
        empty = optimizer.vector.new_empty
        self.slopes = [empty(rows, width) for width in widths]
        self.head_slope = empty(rows, 2 * action_size)

    def sample(self, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Return actions [n, A] in (-1, 1) and their log-densities [n], for inputs [n, in] and noise [n, A]."""
        head = self._head(x)
        log_std = head[:, self.action_size :].clamp(SAC_LOG_STD_MIN, SAC_LOG_STD_MAX)
        return tanh_gaussian(head[:, : self.action_size], log_std, eps)

    def _head(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        if rows not in self._outs:
            self._outs[rows] = [x.new_empty(rows, layer.bias.shape[0]) for layer in self.layers]
        return forward(self.layers, x, self._outs[rows])

    def step(
        self, x: Tensor, eps: Tensor, action: Tensor, by_action: Tensor, alpha: Tensor, learning_rate: float
    ) -> None:
        """Step down alpha mean log pi(a) + f(a).

        Args:
            x: [B, in] inputs; `sample` of them, with `eps`, went last before among those of B rows.
            eps: [B, A] the noise.
            action: [B, A] the sample.
            by_action: [B, A] derivative of f.
            alpha: [] or [1] temperature.
            learning_rate: step size.
        """
        size, outs = self.action_size, self._outs[self.rows]
        raw = outs[-1][:, size:]
        log_std = raw.clamp(SAC_LOG_STD_MIN, SAC_LOG_STD_MAX)
        weight = alpha / self.rows
        # log pi has the derivatives 2 tanh(u) by u = mean + std eps, and -1 by log std with u held
        slope = 2 * weight * action + by_action * (1 - action.square())
        self.head_slope[:, :size] = slope
        is_inside = (raw > SAC_LOG_STD_MIN) & (raw < SAC_LOG_STD_MAX)
        self.head_slope[:, size:] = (slope * log_std.exp() * eps - weight) * is_inside
        backward(self.layers, x, outs, self.head_slope, self.slopes)
        self.optimizer.clipped_step(learning_rate, None)
