"""Averages of the weights of models that come from one ancestor (Wortsman et al. 2022, arXiv 2203.05482)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError


def soup(states: Sequence[Mapping[str, Tensor]], weights: Sequence[float] | None = None) -> dict[str, Tensor]:
    """Average the states of models of one architecture: sum of w_k state_k, with the weights scaled to sum to 1.

    Args:
        states: state dicts with the same names and shapes.
        weights: of each; None weighs all alike. With all weight on one model it is that model, bit for bit.

    Returns:
        A state dict of new tensors; what is no floating-point number is taken from the first.

    Raises:
        UsageError: no state, states of different models, or weights that do not fit.
    """
    if not states:
        raise UsageError("a soup needs at least one model")
    shares = [1.0] * len(states) if weights is None else [float(weight) for weight in weights]
    if len(shares) != len(states) or min(shares) < 0 or not sum(shares) > 0:
        raise UsageError(
            f"a soup of {len(states)} models needs as many weights of at least 0, not all 0; got {weights!r}"
        )
    shapes = [{name: tuple(value.shape) for name, value in state.items()} for state in states]
    for other in shapes[1:]:
        if other != shapes[0]:
            different = sorted(set(other.items()) ^ set(shapes[0].items()))
            raise UsageError(f"a soup is of models of one architecture; they differ in {different[0][0]}")
    kept = [(state, share / sum(shares)) for state, share in zip(states, shares, strict=True) if share]
    mixed: dict[str, Tensor] = {}
    for name, first in states[0].items():
        if not first.is_floating_point():
            mixed[name] = first.clone()
        elif len(kept) == 1:
            mixed[name] = kept[0][0][name].clone()
        else:
            mixed[name] = torch.stack([state[name].double() * share for state, share in kept]).sum(0).to(first.dtype)
    return mixed
