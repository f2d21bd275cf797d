"""Intervals of what a few seeds gave: Student's t of a mean, the bootstrap of other statistics, Wilson's of a share, and bands of curves.

Scipy is imported when a quantile is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polyathlon.envs.errors import UsageError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval that covers its true value with the given confidence.

    Attributes:
        estimate: the value found, usually a mean.
        low: lower end.
        high: upper end.
        count: number of independent values (seeds) behind it.
        confidence: the share of such intervals that cover the true value.
    """

    estimate: float
    low: float
    high: float
    count: int
    confidence: float = CONFIDENCE

    def __str__(self) -> str:
        return f"{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}]"


def t_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Return the mean of a few values and its t-interval, mean +- t(n - 1) s / sqrt(n).

    Args:
        values: [n] one number a seed, n >= 2.
        confidence: coverage, between 0 and 1.

    Raises:
        UsageError: fewer than two values, a value that is not finite, or an impossible confidence.
    """
    x = finite(values, 1)
    check_confidence(confidence)
    if x.size < 2:
        raise UsageError(f"an interval needs at least two seeds, got {x.size}")
    mean, half = float(x.mean()), t_factor(x.size, confidence) * float(x.std(ddof=1))
    return Interval(mean, mean - half, mean + half, x.size, confidence)


def bca_interval(
    values: ArrayLike,
    statistic: Callable[..., Any] = np.mean,
    confidence: float = CONFIDENCE,
    resamples: int = 9_999,
    seed: int = 0,
) -> Interval:
    """Return a statistic of values and its bias-corrected and accelerated bootstrap interval (Efron 1987), for statistics other than a mean.

    At eight values and fewer it is too narrow; means take `t_interval`.

    Args:
        values: [n] one number a seed, n >= 2.
        statistic: of (values, axis=) to numbers.
        confidence: coverage, between 0 and 1.
        resamples: number of resamples.
        seed: of the resampling.

    Raises:
        UsageError: as `t_interval`.
    """
    from scipy.stats import bootstrap

    x = finite(values, 1)
    check_confidence(confidence)
    if x.size < 2:
        raise UsageError(f"an interval needs at least two seeds, got {x.size}")
    found = float(statistic(x, axis=0))
    if np.ptp(x) == 0:
        return Interval(found, found, found, x.size, confidence)
    ends = bootstrap(
        (x,),
        statistic,
        n_resamples=resamples,
        confidence_level=confidence,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(found, float(ends.low), float(ends.high), x.size, confidence)


def proportion_interval(successes: int, count: int, confidence: float = CONFIDENCE) -> Interval:
    """Return a share and its Wilson interval.

    Args:
        successes: how many of `count`.
        count: number of independent trials, at least one.
        confidence: coverage, between 0 and 1.

    Raises:
        UsageError: no trials, or more successes than trials.
    """
    from scipy.stats import binomtest

    check_confidence(confidence)
    if count < 1 or not 0 <= successes <= count:
        raise UsageError(f"a share needs 0 <= successes <= count and count >= 1, got {successes} of {count}")
    ends = binomtest(successes, count).proportion_ci(confidence, method="wilson")
    return Interval(successes / count, float(ends.low), float(ends.high), count, confidence)


def curve_band(curves: ArrayLike, confidence: float = CONFIDENCE) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return mean, lower and upper end of the t-interval at each point of several curves; each point's interval holds by itself.

    Args:
        curves: [S, P] one curve a seed, at the same P steps; a single curve has no band and both ends are the curve.
        confidence: coverage, between 0 and 1.

    Returns:
        Three arrays [P].
    """
    values = finite(curves, 2)
    check_confidence(confidence)
    mean, seeds = values.mean(0), values.shape[0]
    if seeds < 2:
        return mean, mean, mean
    half = t_factor(seeds, confidence) * values.std(0, ddof=1)
    return mean, mean - half, mean + half


def t_factor(count: int, confidence: float) -> float:
    """Return t / sqrt(n), by which the standard deviation of n values gives half the width of their mean's interval."""
    from scipy.special import stdtrit

    return float(stdtrit(count - 1, 0.5 + confidence / 2)) / math.sqrt(count)


def finite(values: ArrayLike | Sequence[Any], ndim: int | None = None) -> NDArray[Any]:
    """Return scores as an array of numbers.

    Raises:
        UsageError: it has another number of dimensions than `ndim`, or a score is not finite.
    """
    x = np.asarray(values, dtype=float)
    if x.ndim == 0 or (ndim is not None and x.ndim != ndim):
        raise UsageError(f"scores must have {ndim or 'one or more'} dimension(s), seeds first; got shape {x.shape}")
    if not np.isfinite(x).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(x))[0])
        raise UsageError(
            f"the score at {place if len(place) > 1 else place[0]} is {x[place]}: a run without a finite score belongs in no statistic"
        )
    return x


def check_confidence(confidence: float) -> None:
    """Refuse a confidence outside 0 and 1.

    Raises:
        UsageError: so.
    """
    if not 0 < confidence < 1:
        raise UsageError(f"confidence must lie between 0 and 1, such as 0.95, got {confidence!r}")
