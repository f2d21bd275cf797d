"""Several perceptrons of one shape as one: a batched product for each layer in place of a map over the members."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

# activations that treat every number alike, so that a leading axis of members changes nothing
ELEMENTWISE = (nn.ReLU, nn.Tanh, nn.ELU, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.Sigmoid, nn.Softplus, nn.Mish, nn.Identity)


def is_perceptron(layers: Iterable[nn.Module]) -> bool:
    """Tell whether `perceptrons` knows every layer, and every parameter is learned. Subclasses are not taken for their base."""
    return all(
        type(layer) in ELEMENTWISE
        or (
            type(layer) is nn.Linear and layer.weight.requires_grad and (layer.bias is None or layer.bias.requires_grad)
        )
        or (
            type(layer) is nn.LayerNorm
            and len(layer.normalized_shape) == 1
            and layer.elementwise_affine
            and layer.bias is not None
            and layer.weight.requires_grad
            and layer.bias.requires_grad
        )
        for layer in layers
    )


def perceptrons(layers: Iterable[nn.Module], parameters: Sequence[Tensor], x: Tensor) -> Tensor:
    """Return what E perceptrons give, each at parameters of its own.

    h = h W^T + b a member, by one batched product; (h - mean) / sqrt(var + eps) * w + b.

    Args:
        layers: of one perceptron, see `is_perceptron`.
        parameters: [E, ...] each, in the order of the layers' own.
        x: [E, ..., I].

    Returns:
        [E, ..., O].
    """
    shape, rest = x.shape[:-1], iter(parameters)
    h = x.reshape(x.shape[0], -1, x.shape[-1])
    for layer in layers:
        if type(layer) is nn.Linear:
            weight = next(rest).transpose(1, 2)
            h = torch.bmm(h, weight) if layer.bias is None else torch.baddbmm(next(rest).unsqueeze(1), h, weight)
        elif type(layer) is nn.LayerNorm:
            normal = torch.nn.functional.layer_norm(h, layer.normalized_shape, eps=layer.eps)
            h = normal * next(rest).unsqueeze(1) + next(rest).unsqueeze(1)
        else:
            h = layer(h)
    return h.reshape(*shape, h.shape[-1])
