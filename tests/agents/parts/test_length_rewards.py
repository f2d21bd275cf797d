"""Rewards of length (HAPO, Kimi k1.5), APO's factors and weights, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from polyathlon.agents.parts.advantages import group_advantage
from polyathlon.agents.parts.asymmetric import dads_kl, difficulty_weight, stcr_advantage, too_long_factor
from polyathlon.agents.parts.divergences import kl_token
from polyathlon.agents.parts.length_rewards import (
    HistoryLength,
    cosine_length,
    kimi_length,
    linear_length,
    repeated_share,
)


def close(found, wanted, atol=1e-6):
    torch.testing.assert_close(found.double(), torch.tensor(wanted, dtype=torch.float64), atol=atol, rtol=0)


ONE = torch.zeros(4, dtype=torch.int64)


# ------------------------------------------------------------------------------------------------ Kimi (B10)


def test_short_answers_are_paid_within_their_group():
    length, correct = torch.tensor([10, 20, 30, 40]), torch.tensor([1.0, 0, 0, 1], dtype=torch.float64)
    close(kimi_length(length, correct, ONE, length_weight=1.0), [0.5, 0, -1 / 6, -0.5])
    close(kimi_length(length, correct, ONE, length_weight=0.2), [0.1, 0, -1 / 30, -0.1])
    assert (kimi_length(torch.full((4,), 7), correct, ONE) == 0).all()
    order = torch.tensor([2, 0, 3, 1])
    two = torch.tensor([0, 0, 5, 5])
    close(kimi_length(length[order], correct[order], two), [-0.25, 0.25, -0.25, 0.0])


# ------------------------------------------------------------------------------------------------ HAPO (B16)


@pytest.mark.parametrize(
    ("length", "right", "wrong"),
    [
        (50, math.cos(math.pi / 4), 0),
        (100, 0, 0),
        (150, -0.7, math.cos(0.75 * math.pi)),
        (200, -0.7, -1),
        (900, -0.7, -1),
    ],
)
def test_the_cosine_of_history(length, right, wrong):
    size, best = torch.tensor([float(length)] * 2).double(), torch.full((2,), 100.0).double()
    close(cosine_length(size, best, torch.tensor([1.0, 0.0])), [right, wrong])
    assert (cosine_length(size, best * math.nan, torch.tensor([1.0, 0.0])) == 0).all()


@pytest.mark.parametrize(
    ("length", "right", "wrong"),
    [(50, 0.5, 0), (100, 0, 0), (110, 0, 0), (150, -0.4, -0.4), (180, -0.7, -0.7), (200, -0.7, -0.9), (999, -0.7, -1)],
)
def test_the_linear_variant(length, right, wrong):
    size, best = torch.tensor([float(length)] * 2).double(), torch.full((2,), 100.0).double()
    close(linear_length(size, best, torch.tensor([1.0, 0.0])), [right, wrong])


def test_any_right_answer_beats_any_wrong_one():
    size = torch.arange(1.0, 400.0)
    for shape in (cosine_length, linear_length):
        right = 1 + shape(size, torch.full_like(size, 100.0), torch.ones_like(size))
        wrong = shape(size, torch.full_like(size, 100.0), torch.zeros_like(size))
        assert float(right.min()) >= 0.3 - 1e-6 and float(wrong.max()) <= 0


def said(part, task, length, correct):
    correct = torch.tensor(correct, dtype=torch.float64)
    nothing = torch.zeros(len(task), 3, dtype=torch.int64), torch.zeros(len(task), 2, dtype=torch.float64)
    found = part(task, torch.tensor(length), correct, *nothing)
    part.after(task, torch.tensor(length), correct)
    return found.tolist()


def test_history_is_kept_by_problem_and_changes_after_the_batch():
    part = HistoryLength(history_weight=2.0)
    assert said(part, ["a", "a", "b"], [100, 60, 30], [1, 1, 0]) == [0, 0, 0]  # a first visit
    assert part.history == {"a": [60.0, 2]}
    assert said(part, ["a", "b"], [30, 30], [1, 1]) == pytest.approx([2 * math.cos(math.pi / 4), 0])
    assert said(part, ["a"], [500], [1]) == pytest.approx([-1.4])
    assert part.history["a"][0] == 30  # never rises
    again = HistoryLength(history_weight=2.0)
    again.load_state_dict(part.state_dict())
    assert said(again, ["a"], [30], [0]) == said(part, ["a"], [30], [0])
    assert said(HistoryLength(history_weight=0.0), ["a"], [3], [1]) == [0]
    mean = HistoryLength(keep="mean")
    said(mean, ["a", "a"], [100, 60], [1, 1])
    said(mean, ["a"], [20], [1])
    assert mean.history["a"] == [60.0, 3]


def test_repeated_runs_cost():
    #                     1  2  3  9  1  2  3   5 5 5 5 5
    tokens = torch.tensor([[0, 1, 2, 3, 9, 1, 2, 3], [0, 5, 5, 5, 5, 5, 8, 8]])
    mask = torch.tensor([[1.0] * 7, [1, 1, 1, 1, 1, 0, 0]], dtype=torch.float64)
    close(repeated_share(tokens, mask), [3 / 7, 4 / 5])
    moved = tokens.clone()
    moved[1, 6:] = 5  # padding
    close(repeated_share(moved, mask), [3 / 7, 4 / 5])
    part = HistoryLength(repetition_weight=0.5)
    found = part(["a", "b"], torch.tensor([7, 5]), torch.ones(2).double(), tokens, mask)
    close(found, [-1.5 / 7, -0.4])


# ------------------------------------------------------------------------------------------------ APO (B6)

LENGTH, CORRECT = torch.tensor([100, 200, 400, 150]), torch.tensor([1.0, 1, 0, 0], dtype=torch.float64)


def test_wrong_answers_that_are_too_long():
    close(too_long_factor(LENGTH, CORRECT, ONE, 1.00001), [1, 1, 1.002497, 1])
    close(too_long_factor(LENGTH, CORRECT, ONE, 1.001), [1, 1, 1.221102, 1])
    far = too_long_factor(LENGTH + torch.tensor([0, 0, 0, 4096]), CORRECT, ONE, 1.00001)
    assert float(far[3]) == pytest.approx(1.0401, abs=1e-4)
    assert (too_long_factor(LENGTH, 0 * CORRECT, ONE, 1.5) == 1).all()  # no right answer to compare with
    plain = group_advantage(CORRECT, ONE, center="group", scale="group", eps=1e-9)
    assert torch.equal(stcr_advantage(CORRECT, LENGTH, CORRECT, ONE, base=1.0), plain)
    found = stcr_advantage(CORRECT, LENGTH, CORRECT, ONE, base=1.001)
    torch.testing.assert_close(found, plain * torch.tensor([1, 1, 1.221102, 1], dtype=torch.float64), atol=1e-6, rtol=0)
    assert (stcr_advantage(torch.full((4,), 0.3), LENGTH, CORRECT, ONE, base=1.5) == 0).all()


def test_hard_prompts_are_held_less():
    d = torch.tensor([0, 0.125, 0.5, 0.875, 1], dtype=torch.float64)
    close(difficulty_weight(d), [1, 0.907310, 0.743119, 0.288077, 1])
    draws = torch.Generator().manual_seed(0)
    logp, ref = (-torch.rand(4, 3, generator=draws, dtype=torch.float64) for _ in range(2))
    mask = torch.tensor([[1.0, 1, 1], [1, 0, 0], [0, 1, 1], [1, 1, 0]], dtype=torch.float64)
    adv = torch.tensor([1.0, 1, -1, -1], dtype=torch.float64)
    each = (kl_token(logp, ref, kind="k3") * mask).sum(1) / mask.sum(1)
    weight = torch.tensor([0.743119, 0.743119, 1, 1], dtype=torch.float64)
    torch.testing.assert_close(dads_kl(logp, ref, mask, adv, CORRECT, ONE), (weight * each).mean(), atol=1e-6, rtol=0)
    moved = torch.where(mask > 0, logp, 5.0)
    torch.testing.assert_close(
        dads_kl(moved, ref, mask, adv, CORRECT, ONE), dads_kl(logp, ref, mask, adv, CORRECT, ONE)
    )
    # all right or all wrong: the plain mean
    torch.testing.assert_close(dads_kl(logp, ref, mask, adv, CORRECT * 0, ONE), each.mean())
