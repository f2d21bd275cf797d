"""DisCO against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from polyathlon.agents.parts.discriminative import disco, discriminative_loss, kl_hinge, length_norm_score

SCORE = torch.tensor([-1, -2, -1.5, -0.5], dtype=torch.float64)
LABEL = torch.tensor([True, False, False, True])
ONE = torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("tau", "value", "gradient"),
    [
        (None, 1.0, [0.5, -0.5, -0.5, 0.5]),
        (1.0, 0.969070, [0.5, -0.377541, -0.622459, 0.5]),
        (0.1, 0.818643, [0.5, -0.006693, -0.993307, 0.5]),
        (1e6, 1.0, [0.5, -0.5, -0.5, 0.5]),
    ],
)
def test_right_above_wrong_by_hand(tau, value, gradient):
    score = SCORE.clone().requires_grad_()
    loss = discriminative_loss(score, LABEL, ONE, tau)
    assert -float(loss) == pytest.approx(value, abs=2e-6)
    (found,) = torch.autograd.grad(-loss, score)
    torch.testing.assert_close(found, torch.tensor(gradient, dtype=torch.float64), atol=2e-6, rtol=0)


@pytest.mark.parametrize("tau", [None, 1.0, 0.1])
def test_prompts_without_both_count_and_add_nothing(tau):
    score = torch.cat([SCORE, SCORE[:2], SCORE[:1]]).requires_grad_()
    label = torch.cat([LABEL, torch.tensor([True, True, False])])
    group = torch.tensor([5, 5, 5, 5, 2, 2, 9])
    loss = discriminative_loss(score, label, group, tau)
    assert float(loss) == pytest.approx(float(discriminative_loss(SCORE, LABEL, ONE, tau)) / 3)
    (found,) = torch.autograd.grad(loss, score)
    assert found.isfinite().all() and (found[4:] == 0).all()
    order = torch.tensor([6, 3, 0, 5, 2, 4, 1])
    assert float(discriminative_loss(score[order], label[order], group[order], tau)) == pytest.approx(float(loss))
    silent = discriminative_loss(score, torch.ones(7, dtype=torch.bool), group, tau)
    (nothing,) = torch.autograd.grad(silent, score)
    assert float(silent) == 0 and (nothing == 0).all()


def test_the_trust_region_by_hand():
    for value, penalty, factor in ((3e-4, 6e-5, 0.2), (1e-4, 0.0, 0.0), (-1.0, 0.0, 0.0)):
        kl = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        found = kl_hinge(kl, 1e-4, 1e3)
        assert float(found) == pytest.approx(penalty, abs=1e-12)
        assert float(torch.autograd.grad(found, kl)[0]) == pytest.approx(factor)


def batch():
    draws = torch.Generator().manual_seed(0)
    logp = -torch.rand(4, 5, generator=draws, dtype=torch.float64)
    mask = torch.tensor([[1.0, 1, 1, 0, 0], [0, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.float64)
    return logp, mask, LABEL.double()


def test_scores_are_means_over_what_was_written():
    logp, mask, _ = batch()
    found = length_norm_score(logp, logp - 0.5, mask, "logL")
    assert float(found[2]) == pytest.approx(float(logp[2, 0])) and float(found[1]) == pytest.approx(
        float(logp[1, 1:].mean())
    )
    torch.testing.assert_close(
        length_norm_score(logp, logp - 0.5, mask, "L-ratio"), torch.full((4,), 0.5).double().exp()
    )


def test_on_policy_disco_b_is_reinforce_with_one_over_the_counts():
    """C2.3: A = 1 / n_right and -1 / n_wrong, a mean over the tokens of each answer."""
    logp, mask, reward = batch()
    leaf = logp.clone().requires_grad_()
    (found,) = torch.autograd.grad(disco(leaf, logp, mask, reward, ONE, kind="L-ratio", tau=None), leaf)
    adv = torch.where(LABEL, 0.5, -0.5).double()
    torch.testing.assert_close(found, -adv[:, None] * mask / mask.sum(1, keepdim=True), atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", ["logL", "L-ratio"])
@pytest.mark.parametrize("tau", [None, 1.0])
def test_padding_changes_nothing_and_the_hinge_acts_beyond_delta(kind, tau):
    logp, mask, reward = batch()
    options = {"kind": kind, "tau": tau}
    whole = disco(logp, logp + 0.01, mask, reward, ONE, **options)
    moved = torch.where(mask > 0, logp, 9.0)
    assert float(disco(moved, torch.where(mask > 0, logp + 0.01, -3.0), mask, reward, ONE, **options)) == pytest.approx(
        float(whole)
    )
    free = disco(logp, logp + 0.01, mask, reward, ONE, beta=0.0, **options)
    assert float(whole - free) == pytest.approx(1e3 * (0.01 - 1e-4) * 0.01)
    # rewards above the threshold are right answers
    assert float(disco(logp, logp, mask, 2 * reward - 1, ONE, threshold=0.0, **options)) == pytest.approx(
        float(disco(logp, logp, mask, reward, ONE, **options))
    )
