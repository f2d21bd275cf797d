"""REINFORCE++, BNPO and the normalisations of Lite PPO against numbers worked out by hand, and their limits."""

from __future__ import annotations

import math

import pytest
import torch

from polyathlon.agents.parts.advantages import (
    beta_log_density,
    beta_norm_advantage,
    group_advantage,
    masked_whiten,
    whitened_advantage,
)
from polyathlon.agents.parts.aggregation import agg_loss
from polyathlon.envs.errors import UsageError

PAIR = torch.tensor([1, 0, 0, 0, 1, 1, 1, 0], dtype=torch.float64)
TWO = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])


def close(found, wanted, atol=5e-7):
    torch.testing.assert_close(found.double(), torch.tensor(wanted, dtype=torch.float64), atol=atol, rtol=0)


# ------------------------------------------------------------------------------------------------ Lite PPO (B4)


def test_group_mean_and_batch_deviation():
    close(group_advantage(PAIR, TWO, center="group", scale="batch"), [1.403119, *[-0.467706] * 3, *[0.467706] * 3, -1.403119], 3e-6)  # fmt: skip
    centred = group_advantage(PAIR, TWO, center="group", scale="batch_centered")
    close(centred, [1.620182, *[-0.540061] * 3, *[0.540061] * 3, -1.620182], 4e-6)
    assert float(PAIR.std()) == pytest.approx(0.534522, abs=1e-6)


def test_what_a_token_weighs_in_each_average():
    """Lengths 2 and 8 with A = 1 and -1 (B4.5)."""
    mask = torch.tensor([[1.0] * 2 + [0.0] * 6, [1.0] * 8], dtype=torch.float64)
    for mode, norm, wanted in (
        ("token-mean", None, (0.1, -0.1)),
        ("seq-mean-token-mean", None, (0.25, -0.0625)),
        ("seq-mean-token-sum-norm", 16.0, (0.03125, -0.03125)),
    ):
        loss = torch.tensor([[1.0], [-1.0]], dtype=torch.float64).expand(2, 8).clone().requires_grad_()
        (weight,) = torch.autograd.grad(agg_loss(loss, mask, mode, norm), loss)
        assert (float(weight[0, 0]), -float(weight[1, 0])) == pytest.approx(wanted)


# ------------------------------------------------------------------------------------------------ REINFORCE++ (A1)


def test_whitened_over_tokens():
    mask = torch.tensor([[1.0, 1, 0], [1, 0, 0], [1, 1, 1], [0, 1, 0]], dtype=torch.float64)
    reward, group = torch.tensor([1.0, 0, 1, 1], dtype=torch.float64), torch.tensor([0, 0, 1, 1])
    for center, centred in (("none", reward), ("group", torch.tensor([0.5, -0.5, 0, 0], dtype=torch.float64))):
        found = whitened_advantage(reward, group, mask, center=center)
        each = centred[:, None].expand_as(mask)[mask > 0]
        wanted = (each - each.mean()) / each.std()
        torch.testing.assert_close(found[mask > 0], wanted, atol=1e-6, rtol=0)
        assert (found[mask == 0] == 0).all()
    for equal in (-1.7, 0.1, 100.1, 1e6 + 0.7):
        same = torch.full((4,), equal)
        assert (whitened_advantage(same, group, mask.float()) == 0).all()


def test_weights_count_in_the_whitening():
    """An entry of weight 2 counts as two entries; one of weight 0 as none."""
    x = torch.tensor([[1.0, 2.0, 7.0, 4.0]], dtype=torch.float64)
    ones, weight = torch.ones_like(x), torch.tensor([[1.0, 2.0, 0.0, 1.0]], dtype=torch.float64)
    doubled = masked_whiten(torch.tensor([[1.0, 2.0, 2.0, 4.0]], dtype=torch.float64), ones)
    found = masked_whiten(x, ones, weight=weight)
    torch.testing.assert_close(found[0, [0, 1, 3]], doubled[0, [0, 1, 3]])
    torch.testing.assert_close(masked_whiten(x, ones, weight=ones), masked_whiten(x, ones), atol=0, rtol=0)


# ------------------------------------------------------------------------------------------------ BNPO (B1)

HAND = torch.tensor([1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0], dtype=torch.float64)
THREE = torch.arange(3).repeat_interleave(4)
WANTED = [0.680175, *[-0.226725] * 3, *[0.392699] * 2, *[-0.392699] * 2, *[0.226725] * 3, -0.680175]


def test_the_beta_normaliser_by_hand():
    close(beta_norm_advantage(HAND, THREE), WANTED)
    close(beta_norm_advantage(3 * HAND - 1, THREE, r_min=-1, r_max=2), WANTED)
    order = torch.tensor([7, 2, 11, 0, 5, 9, 1, 10, 3, 8, 4, 6])
    torch.testing.assert_close(beta_norm_advantage(HAND[order], THREE[order]), beta_norm_advantage(HAND, THREE)[order])
    # ragged groups whose numbers have gaps
    keep = torch.tensor([0, 1, 4, 5, 6, 8, 9, 10, 11])
    gaps = beta_norm_advantage(HAND[keep], 3 * THREE[keep])
    torch.testing.assert_close(gaps, beta_norm_advantage(HAND[keep], THREE[keep]))


def test_normalisers_that_are_other_methods():
    p = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    one, half = torch.ones((), dtype=torch.float64), torch.tensor(1.5, dtype=torch.float64)
    assert beta_log_density(p, one, one).abs().max() < 1e-12  # REINFORCE with the mean as baseline
    weighted = (-beta_log_density(p, half, half)).exp() * (p * (1 - p)).sqrt()
    torch.testing.assert_close(weighted, torch.full_like(p, math.pi / 8))  # GRPO but for a constant
    # accuracies spread more than any Beta distribution with a, b > 0 is: the fit is clamped to alpha = beta = 1
    wide = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 0], dtype=torch.float64)
    torch.testing.assert_close(beta_norm_advantage(wide, THREE), group_advantage(wide, THREE, center="group"))
    for alone in (torch.zeros(12, dtype=torch.int64), THREE * 0 + 5):
        torch.testing.assert_close(beta_norm_advantage(HAND, alone), group_advantage(HAND, alone, center="group"))
    # all prompts equally hard: no spread to fit
    equal = torch.tensor([1, 0, 0, 0] * 3, dtype=torch.float64)
    torch.testing.assert_close(beta_norm_advantage(equal, THREE), group_advantage(equal, THREE, center="group"))


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_equal_rewards_give_exactly_nothing(value):
    reward = torch.tensor([value] * 4 + [1, 0, 1, 0] + [value] * 4)
    found = beta_norm_advantage(reward, THREE)
    assert found.isfinite().all() and (found[[0, 1, 2, 3, 8, 9, 10, 11]] == 0).all() and (found[4:8] != 0).all()


@pytest.mark.parametrize(
    ("a", "b", "reinforce", "grpo", "bnpo"),
    [
        (0.8, 2.4, 0.14286, 0.15421, 0.10341),
        (3, 1, 0.15, 0.15421, 0.09963),
        (6, 2, 0.16667, 0.15421, 0.07764),
        (1.5, 1.5, 0.1875, 0.15421, 0.15421),
    ],
)
def test_its_variance_is_the_smallest(a, b, reinforce, grpo, bnpo):
    """E[((r - p) / f)^2] over p ~ Beta(a, b), integrated numerically; alpha = 1 + a / 3, beta = 1 + b / 3 (B1.5)."""
    x = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    p = x.square() * (3 - 2 * x)  # denser at both ends, where the density may be infinite
    dp = 6 * x * (1 - x) / 400_000
    prior = beta_log_density(p, torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)).exp()

    def variance(alpha, beta):
        f = beta_log_density(p, torch.tensor(alpha).double(), torch.tensor(beta).double()).exp()
        return float((p * (1 - p) / f.square() * prior * dp).sum())

    # the constant of GRPO's normaliser is that of alpha = beta = 1.5
    assert variance(1.0, 1.0) == pytest.approx(reinforce, abs=2e-4)
    assert variance(1.5, 1.5) == pytest.approx(grpo, abs=2e-4)
    assert variance(1 + a / 3, 1 + b / 3) == pytest.approx(bnpo, abs=2e-4)


@pytest.mark.parametrize("wrong", [-0.5, 1.5, 2.0])
def test_rewards_outside_its_bounds_are_refused(wrong):
    with pytest.raises(UsageError, match="r_max"):
        beta_norm_advantage(torch.tensor([0.0, wrong]), torch.tensor([0, 0]))
    with pytest.raises(UsageError, match="r_min=1 to r_max=1"):
        beta_norm_advantage(torch.tensor([1.0, 1.0]), torch.tensor([0, 0]), r_min=1)
