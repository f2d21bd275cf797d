"""Intervals and verdicts: values worked out by hand, simulated coverage and power, and what is refused."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from polyathlon.envs.errors import UsageError
from polyathlon.statistics import (
    Interval,
    bca_interval,
    curve_band,
    detection_power,
    holm_confidences,
    interquartile_mean,
    is_equivalent,
    is_not_worse,
    paired_difference,
    performance_profile,
    probability_of_improvement,
    proportion_interval,
    smallest_effect,
    stratified_interval,
    t_interval,
    t_test,
    verdict,
)

REPEATS = 4_000


def within_error(share: float, expected: float, repeats: int) -> bool:
    """Whether a simulated share lies within four standard errors of what it should be."""
    return abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / repeats)


def test_the_t_interval_is_the_one_of_the_tables():
    # t(2, 0.975) = 4.30265; mean 2, deviation 1
    found = t_interval([1.0, 2.0, 3.0])
    assert found.estimate == 2.0 and found.count == 3
    assert found.high - 2.0 == pytest.approx(4.30265 / math.sqrt(3), abs=1e-5)
    assert 2.0 - found.low == pytest.approx(4.30265 / math.sqrt(3), abs=1e-5)
    # t(7, 0.95) = 1.89458
    assert t_interval(range(8), confidence=0.9).high == pytest.approx(3.5 + 1.89458 * math.sqrt(6 / 8), abs=1e-5)


@pytest.mark.parametrize("seeds", [3, 5, 8])
def test_the_t_interval_covers_what_it_says_and_the_percentile_bootstrap_does_not(seeds):
    rng = np.random.default_rng(seeds)
    draws = rng.normal(size=(REPEATS, seeds))
    covered = [interval.low <= 0 <= interval.high for interval in map(t_interval, draws)]
    assert within_error(np.mean(covered), 0.95, REPEATS)
    means = draws[:500][np.arange(500)[:, None, None], rng.integers(seeds, size=(500, 400, seeds))].mean(2)
    low, high = np.percentile(means, [2.5, 97.5], axis=1)
    assert not within_error(np.mean((low <= 0) & (high >= 0)), 0.95, 500)


def test_the_bca_interval_is_wider_on_the_side_of_the_tail():
    skewed = np.random.default_rng(0).exponential(size=30)
    found = bca_interval(skewed, np.median, seed=1)
    assert found.estimate == np.median(skewed)
    assert found.high - found.estimate > found.estimate - found.low > 0
    assert found == bca_interval(skewed, np.median, seed=1)
    assert bca_interval([2.0, 2.0, 2.0]).high == 2.0


@pytest.mark.parametrize("seeds", [3, 8])
def test_the_same_method_twice_is_different_in_one_of_twenty_repeats(seeds):
    rng = np.random.default_rng(1)
    skewed = rng.exponential(size=(2, 500, seeds)) if seeds == 8 else rng.normal(size=(2, 500, seeds))
    different = [verdict(paired_difference(a, b)) != "not shown" for a, b in zip(*skewed)]
    assert within_error(np.mean(different), 0.05, 500)


def test_an_effect_of_one_standard_deviation_is_found_in_four_of_five_repeats():
    rng = np.random.default_rng(2)
    seeds = 10
    shared = rng.normal(size=(500, seeds))  # what a seed does to both arms
    baseline, gain = shared, 1.0 + rng.normal(size=(500, seeds))
    found = [verdict(paired_difference(b + g, b)) == "better" for b, g in zip(baseline, gain)]
    assert within_error(np.mean(found), detection_power(1.0, seeds), 500)
    assert detection_power(1.0, seeds) >= 0.8 > detection_power(1.0, seeds - 1)


def test_pairing_removes_what_a_seed_does_to_both_arms():
    noise = np.array([5.0, -3.0, 1.0, 8.0])
    found = paired_difference(noise + np.array([1.0, 1.1, 0.9, 1.0]), noise)
    assert found.estimate == pytest.approx(1.0) and found.low > 0.8
    assert t_interval(noise).low < 0 < t_interval(noise).high


def test_tasks_are_averaged_within_a_seed():
    scores = np.array([[1.0, 3.0], [2.0, 6.0], [0.0, 2.0]])
    assert paired_difference(scores, np.zeros((3, 2))) == t_interval([2.0, 4.0, 1.0])


def test_verdicts_depend_on_the_side_of_zero_and_on_what_is_good():
    above, below, across = (Interval(0, low, high, 8) for low, high in [(0.1, 0.3), (-0.3, -0.1), (-0.1, 0.1)])
    assert [verdict(i) for i in (above, below, across)] == ["better", "worse", "not shown"]
    assert [verdict(i, higher_is_better=False) for i in (above, below, across)] == ["worse", "better", "not shown"]
    assert verdict(Interval(0.15, 0.0, 0.3, 8)) == "not shown"


def test_equal_differences_count_only_when_their_signs_alone_would():
    assert verdict(t_interval([1.0] * 5)) == "not shown"  # 2^-4 = 0.0625
    assert verdict(t_interval([1.0] * 6)) == "better"  # 2^-5 = 0.03125
    assert verdict(t_interval([0.0] * 20)) == "not shown"


@pytest.mark.parametrize(
    ("low", "high", "equivalent", "not_worse"),
    [(-0.1, 0.1, True, True), (-0.1, 0.3, False, True), (-0.3, 0.1, False, False), (-0.2, 0.1, False, False)],
)
def test_margins_bound_both_sides_or_the_loss_alone(low, high, equivalent, not_worse):
    interval = Interval(0.0, low, high, 8)
    assert is_equivalent(interval, 0.2) is equivalent
    assert is_not_worse(interval, 0.2) is not_worse
    assert is_not_worse(Interval(0.0, -high, -low, 8), 0.2, higher_is_better=False) is not_worse


@pytest.mark.parametrize("margin", [0.0, -0.1, math.nan])
def test_a_margin_of_nothing_cannot_be_shown_and_is_refused(margin):
    for judge in (is_equivalent, is_not_worse):
        with pytest.raises(UsageError, match="margin must be above zero"):
            judge(Interval(0.0, -0.1, 0.1, 8), margin)


def test_power_and_the_smallest_effect_are_inverse():
    assert detection_power(0.0, 8) == pytest.approx(0.025)
    for seeds in (3, 8, 20):
        assert detection_power(smallest_effect(seeds), seeds) == pytest.approx(0.8)
    assert smallest_effect(8) == pytest.approx(1.156, abs=1e-3)  # Cohen 1988 by interpolation: 1.15
    with pytest.raises(UsageError, match="power must be between 0.025 and 1"):
        smallest_effect(8, power=0.01)


def test_the_wilson_interval_of_a_share():
    # (p + z^2 / 2n +- z sqrt(p q / n + z^2 / 4 n^2)) / (1 + z^2 / n) with p = 0.85, n = 40, z = 1.959964
    found = proportion_interval(34, 40)
    assert (found.low, found.high) == (pytest.approx(0.70927, abs=1e-4), pytest.approx(0.92940, abs=1e-4))
    assert proportion_interval(40, 40).high == pytest.approx(1.0)
    with pytest.raises(UsageError, match="5 of 4"):
        proportion_interval(5, 4)


def test_the_band_of_curves_is_the_t_interval_of_every_point():
    curves = np.random.default_rng(0).normal(size=(5, 3))
    mean, low, high = curve_band(curves)
    for point in range(3):
        at = t_interval(curves[:, point])
        assert (mean[point], low[point], high[point]) == pytest.approx((at.estimate, at.low, at.high))
    assert all(np.array_equal(part, curves[0]) for part in curve_band(curves[:1]))


def test_the_interquartile_mean_leaves_out_a_quarter_on_each_side():
    scores = np.array([[-100.0, 3.0], [1.0, 2.0], [4.0, 5.0], [6.0, 900.0]])
    assert interquartile_mean(scores) == (2.0 + 3.0 + 4.0 + 5.0) / 4
    assert interquartile_mean(np.stack([scores, scores + 1])).tolist() == [3.5, 4.5]
    assert interquartile_mean(np.arange(3.0)[:, None]) == 1.0  # floor(3 / 4) = 0 left out


def test_the_stratified_interval_resamples_seeds_within_tasks():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(20, 4)) + 100.0 * np.arange(4)  # tasks far apart add nothing to the width
    mean = stratified_interval(scores, lambda x: x.mean((-1, -2)), resamples=4_000)
    expected = 1.96 * math.sqrt((scores.var(0) / 20).sum()) / 4
    assert mean.estimate == scores.mean() and mean.count == 20
    assert (mean.high - mean.low) / 2 == pytest.approx(expected, rel=0.06)
    middle = stratified_interval(scores, resamples=500)
    assert middle.low < interquartile_mean(scores) < middle.high
    assert middle == stratified_interval(scores, resamples=500) != stratified_interval(scores, resamples=500, seed=1)


def test_the_performance_profile_is_the_share_of_runs_above_a_score():
    scores = np.array([[0.0, 1.0], [2.0, 3.0]])
    assert performance_profile(scores, [-1.0, 0.0, 1.5, 3.0]).tolist() == [1.0, 0.75, 0.5, 0.0]
    assert performance_profile(np.stack([scores, scores]), [0.0]).shape == (2, 1)


def test_the_probability_of_improvement_counts_pairs_and_half_of_the_ties():
    assert probability_of_improvement([[1.0], [2.0]], [[1.0], [0.0], [5.0]]) == pytest.approx((0.5 + 1 + 1 + 1) / 6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: t_interval([1.0]), "at least two seeds, got 1"),
        (lambda: bca_interval([1.0]), "at least two seeds, got 1"),
        (lambda: stratified_interval([[1.0, 2.0]]), "at least two seeds, got 1"),
        (lambda: detection_power(1.0, 1), "at least two seeds, got 1"),
        (lambda: t_interval([1.0, math.nan]), "score at 1 is nan"),
        (lambda: paired_difference([[1.0, 2.0], [math.inf, 0.0]], np.zeros((2, 2))), r"score at \(1, 0\) is inf"),
        (lambda: paired_difference([1.0, 2.0], [1.0, 2.0, 3.0]), r"shapes \(2,\) and \(3,\)"),
        (lambda: t_interval([[1.0, 2.0]]), r"got shape \(1, 2\)"),
        (lambda: t_interval([1.0, 2.0], confidence=95), "between 0 and 1, such as 0.95, got 95"),
    ],
)
def test_what_cannot_be_judged_is_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()


def test_the_t_test_is_the_closed_form_of_two_degrees_of_freedom():
    # t = 2 sqrt(3); with two degrees of freedom p = 1 - t / sqrt(t^2 + 2)
    t = 2 * math.sqrt(3)
    assert t_test([1.0, 2.0, 3.0]) == t_test([-1.0, -2.0, -3.0]) == pytest.approx(1 - t / math.sqrt(t * t + 2))
    assert (t_test([2.0, 2.0]), t_test([0.0, 0.0, 0.0])) == (0.0, 1.0)


def test_holms_levels_are_those_worked_out_by_hand():
    # sorted: 0.005 <= 0.05/4, 0.01 <= 0.05/3, 0.03 > 0.05/2: the procedure ends, and 0.04 is judged at 0.05/2 as well
    found = holm_confidences([0.01, 0.04, 0.03, 0.005])
    assert found == pytest.approx([1 - 0.05 / 3, 0.975, 0.975, 1 - 0.05 / 4])
    assert holm_confidences([0.04]) == pytest.approx([0.95])
    # all pass: the largest is judged at the whole level
    assert holm_confidences([0.001, 0.002, 0.049]) == pytest.approx([1 - 0.05 / 3, 1 - 0.05 / 2, 0.95])


def test_an_interval_at_holms_level_leaves_out_zero_exactly_where_holm_rejects():
    rng = np.random.default_rng(0)
    gains = rng.normal(np.linspace(0, 3, 20)[:, None], 1.0, (20, 6))
    p = np.array([t_test(row) for row in gains])
    excludes = [t_interval(row, c).low > 0 or t_interval(row, c).high < 0 for row, c in zip(gains, holm_confidences(p))]
    order = np.argsort(p)
    rejected = np.zeros(20, bool)
    for k, i in enumerate(order):  # Holm 1979, as it is written
        if p[i] > 0.05 / (20 - k):
            break
        rejected[i] = True
    assert excludes == rejected.tolist() and 3 < rejected.sum() < 20


def test_the_module_imports_neither_torch_nor_scipy():
    code = "import sys, polyathlon.statistics; print('torch' in sys.modules, any(m.startswith('scipy') for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
