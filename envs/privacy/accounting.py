"""Gaussian differential privacy: what noisy steps on random samples cost, and the noisy step itself.

Source: Dong, Roth and Su 2022, "Gaussian Differential Privacy"; Bu et al. 2020 for the central limit theorem of sub-sampled
steps. A mechanism is mu-GDP when telling two neighbouring data sets apart is no easier than N(0, 1) from N(mu, 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError

MOST_MU = 40.0
_PHI = NormalDist().cdf


def step_cost(sigma: float) -> float:
    """Return e^(1 / sigma^2) - 1, what one step with noise multiplier sigma adds to (mu / q)^2; inf where that overflows."""
    exponent = 1.0 / (sigma * sigma) if sigma else math.inf
    return math.expm1(exponent) if exponent < 700 else math.inf


def gdp_spent(q: float, sigmas: Iterable[float]) -> float:
    """Return mu = q sqrt(sum_t (e^(1 / sigma_t^2) - 1)) of steps on Poisson samples of rate q.

    Args:
        q: probability of each example to be in a step's sample.
        sigmas: noise multiplier of every step.
    """
    return q * math.sqrt(math.fsum(step_cost(sigma) for sigma in sigmas))


def gdp_delta(mu: float, epsilon: float) -> float:
    """Return delta(epsilon) = Phi(-epsilon / mu + mu / 2) - e^epsilon Phi(-epsilon / mu - mu / 2) of a mu-GDP mechanism."""
    if mu == 0:
        return 0.0
    tail = _PHI(-epsilon / mu - mu / 2)
    # the second term is at most the first one: where e^epsilon overflows, the tail has long been 0
    second = math.exp(epsilon + math.log(tail)) if tail > 0 else 0.0
    return max(0.0, _PHI(-epsilon / mu + mu / 2) - second)


def gdp_eps(mu: float, delta: float) -> float:
    """Return the smallest epsilon >= 0 for which a mu-GDP mechanism is (epsilon, delta)-private.

    Raises:
        UsageError: delta lies outside (0, 1).
    """
    check_budget(1.0, delta)
    if gdp_delta(mu, 0.0) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while gdp_delta(mu, high) > delta:
        low, high = high, 2 * high
        if high > 1e6:
            return math.inf
    return _bisected(lambda epsilon: gdp_delta(mu, epsilon) > delta, low, high)[1]


def gdp_budget(epsilon: float, delta: float) -> float:
    """Return the largest mu that is still (epsilon, delta)-private.

    Raises:
        UsageError: epsilon is not positive, or delta lies outside (0, 1).
    """
    check_budget(epsilon, delta)
    return _bisected(lambda mu: gdp_delta(mu, epsilon) <= delta, 0.0, MOST_MU)[0]


def check_budget(epsilon: float, delta: float) -> None:
    """Refuse a budget that means nothing.

    Raises:
        UsageError: epsilon is not positive and finite, or delta lies outside (0, 1).
    """
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 < epsilon < math.inf:
        raise UsageError(f"epsilon must be positive and finite, got {epsilon!r}")
    if isinstance(delta, bool) or not isinstance(delta, int | float) or not 0 < delta < 1:
        raise UsageError(f"delta must lie between 0 and 1 (below 1 / number of examples), got {delta!r}")


def _bisected(is_low: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Return neighbours around the number at which `is_low` turns from true to false."""
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if is_low(middle):
            low = middle
        else:
            high = middle
    return low, high


def clip_blocks(gradients: Sequence[Tensor], bounds: Tensor) -> list[Tensor]:
    """Scale the gradient of each example in each block to norm C_j at most: g_ij min(1, C_j / ||g_ij||).

    Args:
        gradients: of every block [B, D_j], a row an example.
        bounds: [J] the C_j.

    Returns:
        The gradients, clipped, in the same shapes.
    """
    return [g * (c / g.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1.0) for g, c in zip(gradients, bounds)]


def dp_clip_noise(
    gradients: Sequence[Tensor], bounds: Tensor, sigma: float, expected: float, generator: torch.Generator | None
) -> list[Tensor]:
    """Return the private mean gradient of each block: (sum_i clipped g_ij + N(0, s_j^2)) / (q N), s_j = sigma C_j sqrt(J).

    Block j divided by C_j moves by at most 1 when an example comes or goes, all J blocks together by sqrt(J): with that noise
    the whole is one Gaussian mechanism of noise multiplier sigma.

    Args:
        gradients: of every block [B, D_j], a row an example; B may be 0.
        bounds: [J] the clipping norms C_j.
        sigma: noise multiplier.
        expected: expected size q N of the sample, which the sum is divided by (its true size is private).
        generator: of the noise.

    Returns:
        [D_j] for every block.
    """
    found = []
    scale = sigma * math.sqrt(len(gradients))
    for g, c in zip(clip_blocks(gradients, bounds), bounds, strict=True):
        noise = torch.randn(g.shape[1], generator=generator, dtype=g.dtype, device=g.device)
        found.append((g.sum(0) + scale * c * noise) / expected)
    return found
