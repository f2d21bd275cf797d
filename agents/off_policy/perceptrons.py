"""Perceptrons whose parameters are stretches of a flat vector, with the derivatives written out and no allocation per step."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from polyathlon.agents.parts.flat_adam import section
from polyathlon.agents.parts.products import addmm_, mm_
from polyathlon.envs.errors import UsageError


class Layer(NamedTuple):
    """Weights [out, in] and biases [out] of a layer, and where their gradients go (None where none are wanted)."""

    weight: Tensor
    bias: Tensor
    weight_gradient: Tensor | None
    bias_gradient: Tensor | None


def layers_of(vector: Tensor, gradient: Tensor | None, sizes: list[int], start: int = 0) -> tuple[list[Layer], int]:
    """View a stretch of a flat vector as the layers of a perceptron.

    Args:
        vector: [P] parameters, each layer's weight followed by its bias.
        gradient: [P] gradients, or None.
        sizes: widths from the input to the output.
        start: where the first weight begins.

    Returns:
        The layers, and the index behind the last.
    """
    layers = []
    for before, after in pairwise(sizes):
        weight, middle = section(vector, start, (after, before))
        bias, end = section(vector, middle, (after,))
        slopes: tuple[Tensor | None, Tensor | None] = (None, None)
        if gradient is not None:
            slopes = (section(gradient, start, (after, before))[0], section(gradient, middle, (after,))[0])
        layers.append(Layer(weight, bias, *slopes))
        start = end
    return layers, start


def forward(layers: list[Layer], x: Tensor, outs: list[Tensor]) -> Tensor:
    """Run a perceptron with rectified hidden layers; `outs` receive what each layer gives, each in its own type."""
    last = len(layers) - 1
    for i, layer in enumerate(layers):
        addmm_(layer.bias, x, layer.weight.t(), outs[i])
        x = outs[i].relu_() if i < last else outs[i]
    return x


def backward(layers: list[Layer], x: Tensor, outs: list[Tensor], slope: Tensor, slopes: list[Tensor]) -> Tensor:
    """Back-propagate `slope` [B, out]; gradients of the weights go where the layers say.

    Args:
        layers: the perceptron.
        x: [B, in] its input.
        outs: what each layer gave in `forward`.
        slope: derivative by the output.
        slopes: memory for the derivatives by the hidden layers.

    Returns:
        The derivative by the output of the first layer, [B, width].
    """
    for i in range(len(layers) - 1, -1, -1):
        layer, below = layers[i], outs[i - 1] if i else x
        if layer.weight_gradient is not None and layer.bias_gradient is not None:
            mm_(slope.t(), below, layer.weight_gradient)
            torch.sum(slope, 0, dtype=torch.float32, out=layer.bias_gradient)
        if i:
            mm_(slope, layer.weight, slopes[i - 1])
            torch.ops.aten.threshold_backward.grad_input(slopes[i - 1], below, 0, grad_input=slopes[i - 1])
            slope = slopes[i - 1]
    return slope


def input_slope(layers: list[Layer], outs: list[Tensor], slope: Tensor, slopes: list[Tensor], start: int) -> Tensor:
    """Back-propagate `slope` [B, out] to the inputs from number `start` on, [B, in - start]; see `backward`.

    The layers want no gradients.
    """
    first = backward(layers, slope, outs, slope, slopes)
    weight = layers[0].weight[:, start:]
    return mm_(first, weight, weight.new_empty(first.shape[0], weight.shape[1]))


def rectified_layers(network: nn.Module) -> list[nn.Linear]:
    """Return the linear layers of a perceptron with rectified hidden layers; a last tanh is left out.

    Raises:
        UsageError: it has other layers.
    """
    layers = list(network.children())
    if layers and isinstance(layers[-1], nn.Tanh):
        layers.pop()
    if not all(isinstance(layer, nn.Linear | nn.ReLU) for layer in layers):
        raise UsageError(
            f"the networks of off-policy agents are perceptrons with ReLU, got {network}; leave activation_fn out"
        )
    return [layer for layer in layers if isinstance(layer, nn.Linear)]


def parameters_of(layers: list[nn.Linear]) -> list[nn.Parameter]:
    """Return weight and bias of each layer, in order."""
    return [p for layer in layers for p in layer.parameters()]


def flat_copy(networks: list[list[nn.Linear]]) -> Tensor:
    """Lay the parameters of networks that are not trained into one vector, of which they become views."""
    return flat_views([p for layers in networks for p in parameters_of(layers)])


def flat_views(parameters: list[nn.Parameter]) -> Tensor:
    """Lay parameters that are not trained into one vector, of which they become views."""
    vector = torch.cat([p.detach().reshape(-1) for p in parameters])
    start = 0
    for parameter in parameters:
        parameter.data, start = section(vector, start, tuple(parameter.shape))
    return vector
