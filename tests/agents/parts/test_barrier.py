"""Barriers against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from polyathlon.agents.parts.barrier import batch_barrier, log_barrier, return_threshold

BETA, T = 0.9, 20.0


def slope(ratio: torch.Tensor, value: torch.Tensor) -> float:
    (gradient,) = torch.autograd.grad(value, ratio)
    return float(gradient.sum())


def test_the_paper_s_barrier_at_its_start():
    ratio, reward = torch.ones((), dtype=torch.float64, requires_grad=True), 2.0
    threshold = return_threshold(torch.tensor(reward, dtype=torch.float64), BETA)
    value = log_barrier(ratio * reward, threshold, T)
    assert float(value.detach()) == pytest.approx(0.0804719, abs=1e-7)
    assert slope(ratio, value) == pytest.approx(-1 / (T * (1 - BETA)))


def test_negative_returns_are_held_too():
    threshold = return_threshold(torch.tensor([-2.0, 2.0, 0.0]), BETA)
    assert threshold.tolist() == pytest.approx([-2.2, 1.8, 0.0])
    ratio = torch.ones((), dtype=torch.float64, requires_grad=True)
    value = log_barrier(ratio * -2.0, torch.tensor(-2.2, dtype=torch.float64), T)
    assert slope(ratio, value) == pytest.approx(1 / (T * (1 - BETA)))


def test_the_code_s_barrier_and_its_defect():
    for reward, wanted in ((2.0, -0.5), (-2.0, 0.0)):
        ratio = torch.ones(4, dtype=torch.float64, requires_grad=True)
        value = batch_barrier(ratio, torch.full((4, 1), reward, dtype=torch.float64), BETA, T, 0.2)
        if reward > 0:
            assert float(value.detach()) == pytest.approx(0.0804719, abs=1e-7)
        assert slope(ratio, value) == pytest.approx(wanted)


def test_a_violated_constraint_pulls_back_along_the_tangent():
    returns = torch.tensor([0.5, 0.1, -1.0], dtype=torch.float64, requires_grad=True)
    value = log_barrier(returns, torch.zeros(3, dtype=torch.float64), T, 0.1)
    (gradient,) = torch.autograd.grad(value.sum(), returns)
    assert gradient.tolist() == pytest.approx([-1 / (T * 0.5), -1 / (T * 0.1), -1 / (T * 0.1)])
    assert value.detach().tolist() == pytest.approx([-math.log(0.5) / T, -math.log(0.1) / T, (-math.log(0.1) + 11) / T])


def test_a_sharp_barrier_vanishes_inside():
    assert float(log_barrier(torch.tensor(2.0), torch.tensor(1.0), 1e12)) == pytest.approx(0.0, abs=1e-9)


def test_the_code_s_barrier_takes_the_mean_over_samples_and_objectives():
    # means of the returns are 2 and 20, ratios are clipped to 0.8 and 1.2: slacks 0.2 and 2 are cut off, -0.6 and -6 stay
    ratio = torch.tensor([0.5, 1.5], dtype=torch.float64)
    returns = torch.tensor([[1.0, 10.0], [3.0, 30.0]], dtype=torch.float64)
    value = batch_barrier(ratio, returns, BETA, T, 0.2)
    wanted = -(2 * math.log(1e-3) + math.log(0.6) + math.log(6.0)) / (4 * T)
    assert value.shape == ()
    assert float(value) == pytest.approx(wanted)
