"""What scores of a few seeds say: intervals, paired differences and verdicts, for claims, comparisons and pictures alike.

The interval is Student's t: it covers what it says when the scores of a method are about normal, at any number of seeds, where the
percentile bootstrap of a mean covers 74 % at three seeds and 84 % at five instead of 95 %. Differences of two methods over the
same seeds are symmetric when the methods are equal, however skewed their scores are. Scipy is imported when a quantile is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polyathlon.envs.errors import UsageError

from .intervals import CONFIDENCE as CONFIDENCE
from .intervals import Interval as Interval
from .intervals import bca_interval as bca_interval
from .intervals import check_confidence, finite, t_factor
from .intervals import curve_band as curve_band
from .intervals import proportion_interval as proportion_interval
from .intervals import t_interval as t_interval

Verdict = Literal["better", "worse", "not shown"]
Statistic = Callable[[NDArray[Any]], NDArray[Any]]


def paired_difference(scores: ArrayLike, baseline: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Return the mean of scores - baseline over common seeds, with its t-interval.

    Args:
        scores: [S] scores by seed, or [S, T] by seed and task; tasks are averaged within a seed.
        baseline: the other method's scores of the same seeds and tasks.
        confidence: coverage, between 0 and 1.

    Raises:
        UsageError: shapes differ, or as `t_interval`.
    """
    a, b = finite(scores), finite(baseline)
    if a.shape != b.shape:
        raise UsageError(
            f"a paired difference needs the same seeds and tasks on both sides, got shapes {a.shape} and {b.shape}"
        )
    difference = a - b
    return t_interval(difference.mean(axis=tuple(range(1, difference.ndim))), confidence)


def t_test(values: ArrayLike) -> float:
    """Return the two-sided p-value of a mean of 0, P(|T| >= |mean| sqrt(n) / s) with T ~ t(n - 1).

    Values that are all the same number give 0, or 1 where that number is 0.

    Args:
        values: [n] one number a seed, n >= 2.

    Raises:
        UsageError: fewer than two values, or one that is not finite.
    """
    from scipy.special import stdtr

    x = finite(values, 1)
    if x.size < 2:
        raise UsageError(f"a test needs at least two seeds, got {x.size}")
    mean, deviation = float(x.mean()), float(x.std(ddof=1))
    if deviation == 0:
        return float(mean == 0)
    return float(2 * stdtr(x.size - 1, -abs(mean) * math.sqrt(x.size) / deviation))


def holm_confidences(p_values: ArrayLike, confidence: float = CONFIDENCE) -> NDArray[Any]:
    """Return the confidence at which each of several intervals is judged, so that all together keep `confidence` (Holm 1979).

    The k-th smallest of m p-values (k = 1, 2, ...) is judged at the level alpha / (m - k + 1), alpha = 1 - confidence, as long as all
    smaller ones passed theirs; the first that fails ends the procedure, and every larger one is judged at that level too, where it
    fails as well.

    Args:
        p_values: [m] two-sided p-values.
        confidence: that of the whole family.

    Returns:
        [m] confidences, in the order given; an interval of its confidence leaves out 0 exactly where Holm rejects.

    Raises:
        UsageError: a p-value lies outside [0, 1], or an impossible confidence.
    """
    p = finite(p_values, 1)
    check_confidence(confidence)
    if ((p < 0) | (p > 1)).any():
        raise UsageError(f"p-values lie between 0 and 1, got {p[(p < 0) | (p > 1)][0]}")
    order = np.argsort(p, kind="stable")
    levels = (1 - confidence) / (p.size - np.arange(p.size))
    failed = np.flatnonzero(p[order] > levels)
    if failed.size:
        levels[failed[0] :] = levels[failed[0]]
    found = np.empty(p.size)
    found[order] = 1 - levels
    return found


def verdict(difference: Interval, higher_is_better: bool = True) -> Verdict:
    """Tell whether a difference to a baseline is better, worse or not shown: whether its interval lies on one side of zero.

    Differences that are all the same number have an interval of no width. They count only when their signs alone would:
    2^(1 - n) <= 1 - confidence, six seeds at 95 %.

    Args:
        difference: interval of method - baseline.
        higher_is_better: whether more is better; False for costs.
    """
    if difference.low == difference.high and 2.0 ** (1 - difference.count) > 1 - difference.confidence:
        return "not shown"
    if difference.low > 0:
        return "better" if higher_is_better else "worse"
    if difference.high < 0:
        return "worse" if higher_is_better else "better"
    return "not shown"


def is_equivalent(difference: Interval, margin: float) -> bool:
    """Tell whether a difference is shown to lie within +- margin of zero (two one-sided tests, Schuirmann 1987).

    Args:
        difference: interval of method - baseline. An interval of 95 % holds each of the two tests at 2.5 %.
        margin: the largest difference that counts as none, in units of the score.

    Raises:
        UsageError: the margin is not above zero; no number of seeds shows that two methods are equal to the digit.
    """
    _check_margin(margin)
    return -margin < difference.low and difference.high < margin


def is_not_worse(difference: Interval, margin: float, higher_is_better: bool = True) -> bool:
    """Tell whether a method is shown to lose at most `margin` to the baseline.

    Args:
        difference: interval of method - baseline.
        margin: the largest loss that counts as none, in units of the score.
        higher_is_better: whether more is better; False for costs.

    Raises:
        UsageError: the margin is not above zero.
    """
    _check_margin(margin)
    return difference.low > -margin if higher_is_better else difference.high < margin


def detection_power(effect: float, seeds: int, confidence: float = CONFIDENCE) -> float:
    """Return the probability that a true difference is found at all: that its t-interval leaves out zero on the right side.

    Args:
        effect: the true mean difference over the standard deviation of the paired differences.
        seeds: number of seeds, at least two.
        confidence: of the interval.

    Raises:
        UsageError: fewer than two seeds or an impossible confidence.
    """
    from scipy.special import nctdtr

    check_confidence(confidence)
    if seeds < 2:
        raise UsageError(f"an interval needs at least two seeds, got {seeds}")
    # t of the differences is noncentral: P(T > t*) with T ~ t(n - 1, |effect| sqrt(n))
    return float(1 - nctdtr(seeds - 1, abs(effect) * math.sqrt(seeds), t_factor(seeds, confidence) * math.sqrt(seeds)))


def smallest_effect(seeds: int, power: float = 0.8, confidence: float = CONFIDENCE) -> float:
    """Return the difference, in standard deviations of the paired differences, that is found with probability `power`.

    At 95 % and a power of 0.8: 1.16 with eight seeds, 1.0 with ten.

    Args:
        seeds: number of seeds, at least two.
        power: probability to find it, above (1 - confidence) / 2 and below 1.
        confidence: of the interval.

    Raises:
        UsageError: as `detection_power`, or an impossible power.
    """
    from scipy.optimize import brentq

    if not (1 - confidence) / 2 < power < 1:
        raise UsageError(f"power must be between {(1 - confidence) / 2:g} and 1, got {power!r}")
    return float(brentq(lambda effect: detection_power(effect, seeds, confidence) - power, 0.0, 100.0))


def interquartile_mean(scores: ArrayLike) -> NDArray[Any]:
    """Return the mean of the middle half of all scores of runs and tasks together (Agarwal et al. 2021, section 4.3).

    Args:
        scores: [..., S, T] normalised scores by seed and task.

    Returns:
        [...]: the lowest and the highest floor(S T / 4) scores are left out.
    """
    x = np.asarray(scores, dtype=float)
    flat = np.sort(x.reshape(*x.shape[:-2], -1), axis=-1)
    cut = flat.shape[-1] // 4
    return np.asarray(flat[..., cut : flat.shape[-1] - cut].mean(-1))


def stratified_interval(
    scores: ArrayLike,
    statistic: Statistic = interquartile_mean,
    confidence: float = CONFIDENCE,
    resamples: int = 9_999,
    seed: int = 0,
) -> Interval:
    """Return a statistic over several tasks and its percentile interval, resampling seeds within each task (Agarwal et al. 2021).

    Too narrow below some ten seeds a task, like every percentile bootstrap; `count` of the result is the number of seeds.

    Args:
        scores: [S, T] normalised scores by seed and task, S >= 2.
        statistic: of scores [..., S, T] to numbers [...].
        confidence: coverage, between 0 and 1.
        resamples: number of resamples.
        seed: of the resampling.

    Raises:
        UsageError: as `t_interval`.
    """
    x = finite(scores, 2)
    check_confidence(confidence)
    seeds = x.shape[0]
    if seeds < 2:
        raise UsageError(f"an interval needs at least two seeds, got {seeds}")
    found = np.concatenate([statistic(each) for each in _resampled(x, resamples, seed)])
    tail = 50 * (1 - confidence)
    low, high = np.percentile(found, [tail, 100 - tail])
    return Interval(float(statistic(x)), float(low), float(high), seeds, confidence)


def _resampled(x: NDArray[Any], resamples: int, seed: int) -> Iterator[NDArray[Any]]:
    """Yield resamples [R, S, T] of scores [S, T]: seeds drawn with replacement within each task, `resamples` in all."""
    seeds, tasks = x.shape
    rng = np.random.default_rng(seed)
    chunk = max(1, min(resamples, 1_000_000 // x.size))
    for done in range(0, resamples, chunk):
        yield x[rng.integers(seeds, size=(min(chunk, resamples - done), seeds, tasks)), np.arange(tasks)]


def optimality_gap(scores: ArrayLike, optimum: float = 1.0) -> NDArray[Any]:
    """Return by how much runs fail to reach a score, on average: mean of optimum - min(score, optimum) (Agarwal et al. 2021, section 4.3).

    Args:
        scores: [..., S, T] normalised scores by seed and task.
        optimum: the normalised score beyond which more does not count.

    Returns:
        [...]: 0 is best.
    """
    x = np.asarray(scores, dtype=float)
    return np.asarray(optimum - np.minimum(x, optimum).mean((-2, -1)))


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> NDArray[Any]:
    """Return the share of runs above each threshold, averaged over tasks (Agarwal et al. 2021, equation 1).

    Args:
        scores: [..., S, T] normalised scores by seed and task.
        thresholds: [K] scores.

    Returns:
        [..., K] shares between 0 and 1.
    """
    x, tau = np.asarray(scores, dtype=float), np.asarray(thresholds, dtype=float)
    return np.asarray((x[..., None] > tau).mean((-3, -2)))


def profile_band(
    scores: ArrayLike, thresholds: ArrayLike, confidence: float = CONFIDENCE, resamples: int = 2_000, seed: int = 0
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return a performance profile with its pointwise percentile band, resampling seeds within each task (Agarwal et al. 2021).

    Args:
        scores: [S, T] normalised scores by seed and task.
        thresholds: [K] scores.
        confidence: coverage, between 0 and 1.
        resamples: number of resamples.
        seed: of the resampling.

    Returns:
        Profile, lower and upper end, each [K].
    """
    x = finite(scores, 2)
    check_confidence(confidence)
    found = np.concatenate([performance_profile(each, thresholds) for each in _resampled(x, resamples, seed)])
    tail = 50 * (1 - confidence)
    low, high = np.percentile(found, [tail, 100 - tail], axis=0)
    return performance_profile(x, thresholds), low, high


def probability_of_improvement(scores: ArrayLike, baseline: ArrayLike) -> NDArray[Any]:
    """Return the chance that a run of the method beats one of the baseline, averaged over tasks; ties count half (Mann and Whitney 1947).

    Args:
        scores: [S, T] scores by seed and task.
        baseline: [R, T] scores of the other method; the numbers of seeds may differ.
    """
    a, b = finite(scores, 2)[:, None], finite(baseline, 2)[None]
    return np.asarray(((a > b) + 0.5 * (a == b)).mean())


def _check_margin(margin: float) -> None:
    if not margin > 0:
        raise UsageError(f"a margin must be above zero, the largest difference that counts as none; got {margin!r}")
