"""Clip-Cov, KL-Cov, forking tokens and TW-GRPO's weights against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from polyathlon.agents.parts.token_weights import (
    clip_cov_mask,
    covariance,
    divergence_weights,
    entropy_top_mask,
    kl_cov_mask,
    kl_cov_surrogate,
    ratio_guard,
)

ADV = torch.tensor([[1.0, 1, 1], [-1, -1, -1]], dtype=torch.float64)
LOGP = torch.tensor([[-0.1, -2, -0.5], [-0.2, -3, -1]], dtype=torch.float64)
MASK = torch.tensor([[1.0, 1, 1], [1, 1, 0]], dtype=torch.float64)


def test_covariances_by_hand():
    found = covariance(ADV, LOGP, MASK)
    wanted = torch.tensor([[0.848, -0.672, 0.528], [-1.152, 2.208, 0]], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)
    torch.testing.assert_close(covariance(ADV[:, 0], LOGP, MASK), wanted, atol=1e-12, rtol=0)
    moved = LOGP.clone()
    moved[1, 2] = 50.0  # padding
    torch.testing.assert_close(covariance(ADV, moved, MASK), wanted, atol=1e-12, rtol=0)


def test_kl_cov_holds_the_largest_covariances_back():
    for percent, chosen in ((0.2, [4]), (40, [4, 0]), (60, [4, 0, 2]), (0, []), (1000, [0, 1, 2, 3, 4])):
        found = kl_cov_mask(ADV, LOGP, MASK, k_percent=percent).flatten()
        assert sorted(found.nonzero()[:, 0].tolist()) == sorted(chosen), percent
    old = LOGP - 0.25
    loss = kl_cov_surrogate(LOGP, old, ADV, MASK, k_percent=40, kl_cov_coef=2.0)
    plain = -ADV * math.exp(0.25)
    extra = torch.tensor([[0.5, 0, 0], [0, 0.5, 0]], dtype=torch.float64)
    torch.testing.assert_close(loss, plain + extra)
    # nothing is clipped, whichever way
    far = kl_cov_surrogate(LOGP, LOGP - 3, ADV, MASK, k_percent=0)
    torch.testing.assert_close(far, -ADV * math.exp(3))


def test_on_the_first_step_kl_cov_is_the_unclipped_loss():
    logp = LOGP.clone().requires_grad_()
    (found,) = torch.autograd.grad((kl_cov_surrogate(logp, LOGP, ADV, MASK, k_percent=50) * MASK).sum(), logp)
    torch.testing.assert_close(found, -ADV * MASK)
    # the sign of rounding noise is a gradient of size c
    (noisy,) = torch.autograd.grad((kl_cov_surrogate(logp, LOGP - 1e-9, ADV, MASK, k_percent=20) * MASK).sum(), logp)
    assert float((noisy + ADV * MASK)[1, 1]) == pytest.approx(1.0, abs=1e-6)


def clipped(choice=None, old=LOGP, **options):
    choice = torch.linspace(0.9, 0.1, 6, dtype=torch.float64).reshape(2, 3) if choice is None else choice
    found = clip_cov_mask(ADV, LOGP, old, MASK, choice, **options)
    return (found == 0).flatten().nonzero()[:, 0].tolist()


def test_clip_cov_takes_some_candidates_out():
    wide = {"low": 0.5, "high": 50.0}
    assert clipped(ratio=1.0, **wide) == [0, 2, 4]  # all candidates, fewer than asked for
    assert clipped(ratio=2e-4, **wide) == [4]  # one at least: the smallest draw
    assert clipped(ratio=0.4, **wide) == [2, 4]
    assert clipped(ratio=0.0, **wide) == []
    assert clipped(ratio=1.0) == [4] and clipped(ratio=1.0, high=2.0) == []  # bounds of the paper: 1 and 5
    draws = torch.linspace(0.1, 0.9, 6, dtype=torch.float64).reshape(2, 3)
    assert clipped(draws, ratio=0.2, **wide) == [0]
    # what the clip of PPO cuts already is no candidate: token 4 has A < 0 and a ratio below 1 - clip_low
    old = LOGP.clone()
    old[1, 1] += 1.0
    assert clipped(ratio=1.0, old=old, clip_low=0.2, clip_high=0.2, **wide) == [0, 2]


def test_candidates_are_drawn_evenly():
    draws = torch.rand(4000, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    count = [0] * 6
    for choice in draws:
        for place in clipped(choice, ratio=0.2, low=0.5, high=50.0):
            count[place] += 1
    assert [count[i] > 0 for i in range(6)] == [True, False, True, False, True, False]
    assert all(abs(count[i] / 4000 - 1 / 3) < 0.03 for i in (0, 2, 4))


def test_forking_tokens_are_those_of_the_highest_entropy():
    entropy = torch.tensor([[0.1, 2, 0.3, 1.5], [0.05, 0.9, 0, 9]], dtype=torch.float64)
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 0]], dtype=torch.float64)
    assert entropy[entropy_top_mask(entropy, mask, rho=0.2) > 0].tolist() == [2.0, 1.5]
    assert int(entropy_top_mask(entropy, mask, rho=0.0).sum()) == 1
    assert torch.equal(entropy_top_mask(entropy, mask, rho=1.0), mask)
    assert int(entropy_top_mask(torch.ones(2, 5), torch.ones(2, 5), rho=0.1 + 0.2).sum()) == 3  # not 4 by rounding
    swapped = entropy_top_mask(entropy.flip(0), mask.flip(0), rho=0.2)
    assert torch.equal(swapped.flip(0), entropy_top_mask(entropy, mask, rho=0.2))


def group_of_two():
    one = [[0.9, 0.1], [0.9, 0.1], [0.5, 0.5]]
    two = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]
    return torch.tensor([one, two], dtype=torch.float64).log()


def test_weights_by_divergence_by_hand():
    mask, group = torch.ones(2, 3, dtype=torch.float64), torch.tensor([0, 0])
    found = divergence_weights(group_of_two(), mask, group, alpha=1.7)
    wanted = torch.tensor([[1, 1.7, 1.008195]] * 2, dtype=torch.float64)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
    assert (divergence_weights(group_of_two(), mask, group, alpha=1.0) == 1).all()
    same = group_of_two()[:1].expand(2, 3, 2)
    assert (divergence_weights(same, mask, group, alpha=1.7) == 1).all()


def test_weights_know_places_by_what_was_written():
    """The k-th written token of each answer, wherever its prompt ended; behind an end the distribution is uniform."""
    lp = group_of_two()
    mask, group = torch.ones(2, 3, dtype=torch.float64), torch.tensor([4, 4])
    wanted = divergence_weights(lp, mask, group, alpha=1.7)
    shifted = torch.full((3, 6, 2), -7.0, dtype=torch.float64)
    shifted[0, 3:], shifted[1, 1:4] = lp[0], lp[1]
    moved = torch.zeros(3, 6, dtype=torch.float64)
    moved[0, 3:], moved[1, 1:4] = 1, 1
    found = divergence_weights(shifted, moved, torch.tensor([4, 4, 0]), alpha=1.7)
    torch.testing.assert_close(found[0, 3:], wanted[0])
    torch.testing.assert_close(found[1, 1:4], wanted[1])
    assert (found[2] == 1).all() and (found[0, :3] == 1).all()
    short = mask.clone()
    short[0, 2] = 0  # ended: uniform, as (.5, .5) is
    torch.testing.assert_close(divergence_weights(lp, short, group, alpha=1.7)[1], wanted[1])
    grown = lp.clone().requires_grad_()
    assert not divergence_weights(grown, mask, group, alpha=1.7).requires_grad


def test_a_minibatch_that_the_policy_has_left_is_skipped_whole():
    old = LOGP.clone()
    old[0, 0] -= math.log(46)  # ratios 46, 1, 1, 1, 1: a mean of 10
    old[1, 2] -= 90.0  # padding
    for largest, weight in ((10.0001, 1.0), (9.9999, 0.0)):
        assert torch.equal(ratio_guard(LOGP, old, MASK, largest_mean_ratio=largest), torch.full_like(MASK, weight))
    assert torch.equal(ratio_guard(LOGP, old - 1e4, MASK), torch.zeros_like(MASK))  # the mean is infinite
