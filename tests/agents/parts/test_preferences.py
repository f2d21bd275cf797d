"""Losses of pairs against numbers worked out by hand, in float64, and against TRL's lines written out."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from polyathlon.agents.parts.f_divergences import best_offset, divergence_link, f_prime, phi_link
from polyathlon.agents.parts.preferences import (
    chosen_nll,
    dpo,
    hinge,
    ipo,
    pair_loss,
    preference_metrics,
    rpo,
    simpo,
    slic,
)
from polyathlon.agents.parts.sequences import log_ratio, pairs, seq_logps
from polyathlon.envs.errors import UsageError


def tensor(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


SIDE, GROUP = torch.tensor([1, -1]), torch.tensor([0, 0])
# the pair of the example: log-probabilities of whole answers, one step each
LOGP, REF, MASK = tensor(-12, -15)[:, None], tensor(-13, -14)[:, None], tensor(1, 1)[:, None]


def gradient(loss, logp=LOGP):
    """Return the value and the gradient at `logp`."""
    leaf = logp.clone().requires_grad_()
    value = loss(leaf)
    return float(value.detach()), torch.autograd.grad(value, leaf)[0].flatten()


def spread(whole, length):
    """Spread log-probabilities of answers over `length` tokens of each, with padding behind."""
    rows = torch.zeros(len(whole), max(length), dtype=torch.float64)
    mask = torch.zeros_like(rows)
    for i, n in enumerate(length):
        mask[i, :n] = 1
        rows[i, :n] = whole[i] / n
    return rows, mask


# ------------------------------------------------------------------------------------------------------ sequences


def test_padding_and_other_tokens_do_not_count():
    logp, mask = tensor([-1, -2, -math.inf], [-4, -8, -16]), tensor([1, 1, 0], [0, 1, 1])
    assert seq_logps(logp, mask).tolist() == [-3, -24] and seq_logps(logp, mask, reduce="mean").tolist() == [-1.5, -12]
    assert log_ratio(logp, tensor([-2, -2, 0], [0, -4, -4]), mask).tolist() == [1, -16]
    assert seq_logps(logp, 0 * mask, reduce="mean").tolist() == [0, 0]
    ref = REF.clone().requires_grad_()
    assert not log_ratio(LOGP, ref, MASK).requires_grad


def test_every_chosen_answer_meets_every_rejected_one_of_its_prompt():
    side, group = torch.tensor([1, -1, 0, -1, 1, 1, -1]), torch.tensor([0, 0, 0, 1, 1, 0, 0])
    won, lost = pairs(side, group)
    assert sorted(zip(won.tolist(), lost.tolist())) == [(0, 1), (0, 6), (4, 3), (5, 1), (5, 6)]


@pytest.mark.parametrize("side", [[1, 1], [-1, -1], [0, 0], [1, 0]])
def test_labels_without_a_partner_are_refused_with_the_reason(side):
    with pytest.raises(UsageError, match=r"give pairs \(prompt, chosen, rejected\).*as for KTO, are no pairs"):
        dpo(LOGP, REF, MASK, torch.tensor(side), GROUP)
    with pytest.raises(UsageError, match="chosen answers alone|rejected answers alone"):
        pairs(torch.tensor([1, -1, side[0] or 1]), torch.tensor([0, 0, 1]))


# ------------------------------------------------------------------------------------------------------ the family


def test_dpo_by_hand():
    value, grad = gradient(lambda x: dpo(x, REF, MASK, SIDE, GROUP, beta=0.1))
    assert value == pytest.approx(0.59814, abs=5e-6)
    assert grad.tolist() == pytest.approx([-0.045017, 0.045017], abs=5e-7)
    smoothed, _ = gradient(lambda x: dpo(x, REF, MASK, SIDE, GROUP, beta=0.1, label_smoothing=0.1))
    assert smoothed == pytest.approx(0.618139, abs=5e-7)
    assert (0.1 * log_ratio(LOGP, REF, MASK)).tolist() == pytest.approx([0.1, -0.1])
    at_start, _ = gradient(lambda x: dpo(x, LOGP, MASK, SIDE, GROUP))
    assert at_start == pytest.approx(math.log(2), abs=1e-12)


def test_dpo_depends_on_the_margin_alone_and_swapping_negates_it():
    def loss(x, side=SIDE):
        return dpo(x, REF, MASK, side, GROUP, beta=0.1)

    value, grad = gradient(loss)
    shifted, other = gradient(loss, LOGP + 7)
    assert shifted == pytest.approx(value, abs=1e-12) and torch.allclose(grad, other, atol=1e-15)
    swapped, _ = gradient(lambda x: loss(x, -SIDE))
    assert swapped == pytest.approx(-float(logsigmoid(tensor(-0.2))), abs=1e-12)
    order = torch.tensor([1, 0])
    assert float(dpo(LOGP[order], REF[order], MASK, -SIDE, GROUP)) == pytest.approx(value, abs=1e-12)


def test_labels_of_pairs_mix_both_directions():
    label = tensor(0.7, 0.7)
    want = 0.7 * pair_loss(tensor(2.0), beta=0.1) + 0.3 * pair_loss(tensor(-2.0), beta=0.1)
    assert float(dpo(LOGP, REF, MASK, SIDE, GROUP, label)) == pytest.approx(float(want), abs=1e-12)
    for certain in (None, tensor(1, 1), tensor(math.nan, math.nan)):
        assert float(dpo(LOGP, REF, MASK, SIDE, GROUP, certain)) == pytest.approx(0.59814, abs=5e-6)


@pytest.mark.parametrize("loss", [dpo, hinge, ipo, rpo, simpo, slic])
def test_every_loss_of_pairs_reads_their_labels(loss):
    fields = {"reference_logp": REF, "mask": MASK, "group": GROUP}
    read = {name: fields[name] for name in fields if name in inspect.signature(loss).parameters}
    plain, turned = (float(loss(LOGP, side=side, **read)) for side in (SIDE, -SIDE))
    for share in (0.0, 0.3, 0.5, 1.0, math.nan):
        found = float(loss(LOGP, side=SIDE, label=tensor(share, share), **read))
        want = plain if math.isnan(share) else share * plain + (1 - share) * turned
        assert found == pytest.approx(want, abs=1e-12) and plain != turned
    if loss is rpo:
        label = tensor(0.3, 0.3)
        assert rpo(LOGP, REF, MASK, SIDE, GROUP, label, eta=0.0) == dpo(LOGP, REF, MASK, SIDE, GROUP, label, beta=0.05)


def test_robust_smoothing_and_no_reference():
    e, d = 0.2, 0.2
    want = (-(1 - e) * logsigmoid(tensor(d)) + e * logsigmoid(tensor(-d))) / (1 - 2 * e)
    found = dpo(LOGP, REF, MASK, SIDE, GROUP, beta=0.1, label_smoothing=e, smoothing="robust")
    assert float(found) == pytest.approx(float(want), abs=1e-12)
    # unbiased: with a share e of flipped labels its mean is the loss without noise
    margin = tensor(d, -d)
    mean = (pair_loss(margin, kind="robust", label_smoothing=e) * tensor(1 - e, e)).sum()
    assert float(mean) == pytest.approx(float(pair_loss(tensor(d))), abs=1e-12)
    assert float(dpo(LOGP, REF, MASK, SIDE, GROUP, reference_free=True)) == pytest.approx(
        float(pair_loss(tensor(3.0), beta=0.1)), abs=1e-12
    )


@pytest.mark.parametrize(
    ("kind", "want"),
    [
        ("reverse_kl", lambda rho: rho),
        ("forward_kl", lambda rho: 1 - (-rho).exp()),
        ("js", lambda rho: math.log(2) + logsigmoid(rho)),
        ("alpha", lambda rho: (((0.5 - 1) * rho).exp() - 1) / (0.5 - 1)),
    ],
)
def test_other_divergences_give_trls_scores(kind, want):
    rho = tensor(0.7, -0.4)
    score = want(rho)
    logp = REF + rho[:, None]
    for beta in (0.1, 1.0):
        found = dpo(logp, REF, MASK, SIDE, GROUP, beta=beta, divergence=kind, alpha=0.5)
        assert float(found) == pytest.approx(float(-logsigmoid(beta * (score[0] - score[1]))), abs=1e-12)


def test_exponentials_stay_numbers_and_alpha_one_is_reverse_kl():
    far = torch.tensor([1e4, -1e4])
    for kind in ("forward_kl", "alpha", "chi2", "reverse_chi2"):
        assert bool(f_prime(far, kind, 1.5).isfinite().all()), kind
    rho = tensor(0.3, -2)
    torch.testing.assert_close(divergence_link(rho, "alpha", 1.0), rho)


def test_ipo_hinge_slic_simpo_by_hand():
    rows = (REF, MASK, SIDE, GROUP)
    assert gradient(lambda x: ipo(x, *rows, tau=0.1, length_norm=False))[0] == pytest.approx(9)
    assert gradient(lambda x: hinge(x, *rows, beta=0.1))[0] == pytest.approx(0.8)
    assert float(slic(LOGP, MASK, SIDE, GROUP, delta=1.0, lam=0.5)) == pytest.approx(6)
    assert float(slic(LOGP, MASK, SIDE, GROUP, delta=4.0, lam=0.5)) == pytest.approx(7)
    logp, mask = spread(tensor(-12, -15), (6, 10))
    assert float(simpo(logp, mask, SIDE, GROUP, beta=2.0, gamma_beta_ratio=0.8)) == pytest.approx(2.67164, abs=5e-6)
    ref, _ = spread(tensor(-13, -14), (6, 10))
    want = (1 / 6 + 1 / 10 - 5) ** 2
    assert float(ipo(logp, ref, mask, SIDE, GROUP, tau=0.1)) == pytest.approx(want, abs=1e-12)
    assert float(hinge(LOGP + tensor(20, 0)[:, None], *rows, beta=0.1)) == 0


def test_pair_losses_refuse_what_they_lack():
    with pytest.raises(UsageError, match="needs tau"):
        pair_loss(tensor(1.0), kind="ipo")
    with pytest.raises(UsageError, match="needs target="):
        pair_loss(tensor(1.0), kind="regress")
    with pytest.raises(UsageError, match="Did you mean 'hinge'"):
        pair_loss(tensor(1.0), kind="hing")


def test_regression_to_a_win_rate_by_hand():
    """DNO's example: eta .5, log-ratios (.3, -.1), win rates (.7, .4)."""
    d = tensor(0.4).requires_grad_()
    z = tensor(0.3).sigmoid()
    loss = pair_loss(d, kind="regress", beta=0.5, target=z)
    assert float(z) == pytest.approx(0.574443, abs=5e-7) and float(loss.detach()) == pytest.approx(0.683250, abs=5e-7)
    assert float(torch.autograd.grad(loss, d)[0]) / 0.5 == pytest.approx(-0.0246085, abs=5e-8)
    half = pair_loss(tensor(0.4, 0.4), weight=tensor(1.0, 0.5))
    assert float(half[1]) == pytest.approx(float(half[0]) / 2)


# ------------------------------------------------------------------------------------------------------ imitation beside pairs


def test_rpo_by_hand_in_both_conventions():
    rows = (LOGP, REF, MASK, SIDE, GROUP)
    plain = float(dpo(*rows, beta=0.01))
    assert plain == pytest.approx(0.683197, abs=5e-7)
    assert float(rpo(*rows, beta=0.01, eta=0.005)) - plain == pytest.approx(0.0006, abs=1e-9)
    for convention in ("summed", "token-mean"):
        assert float(rpo(*rows, beta=0.01, eta=0.0, convention=convention)) == pytest.approx(plain, abs=1e-12)
    _, with_term = gradient(lambda x: rpo(x, *rows[1:], beta=0.01, eta=0.005))
    _, without = gradient(lambda x: dpo(x, *rows[1:], beta=0.01))
    assert (with_term - without).tolist() == pytest.approx([-0.005 * 0.01, 0], abs=1e-12)
    logp, mask = spread(tensor(-12, -15), (6, 10))
    ref, _ = spread(tensor(-13, -14), (6, 10))
    found = rpo(logp, ref, mask, SIDE, GROUP, beta=0.5, eta=0.2, convention="token-mean")
    assert float(found) == pytest.approx(float(dpo(logp, ref, mask, SIDE, GROUP, beta=0.5)) + 0.2 * 12 / 6, abs=1e-12)


def test_imitation_leaves_the_rejected_out_and_averages_in_three_ways():
    logp, mask = spread(tensor(-12, -15, -3, -9), (6, 10, 1, 4))
    side = torch.tensor([1, -1, 0, -1])
    assert float(chosen_nll(logp, mask, side, reduce="sum")) == pytest.approx(7.5)
    assert float(chosen_nll(logp, mask, side, reduce="answer-mean")) == pytest.approx(2.5)
    assert float(chosen_nll(logp, mask, side)) == pytest.approx(15 / 7)
    _, grad = gradient(lambda x: chosen_nll(x, mask, side), logp)
    assert not bool(grad.view_as(logp)[side < 0].any())
    with pytest.raises(UsageError, match="all are rejected"):
        chosen_nll(logp, mask, -torch.ones_like(side))


def test_a_logits_gradient_of_imitation_is_softmax_minus_onehot():
    z = tensor([0.3, -1, 2]).requires_grad_()
    chosen_nll(z.log_softmax(-1)[:, 1:2], tensor([1.0]), torch.tensor([1]), reduce="sum").backward()
    torch.testing.assert_close(z.grad[0], z.detach().softmax(-1)[0] - tensor(0, 1, 0))


def test_what_is_watched_of_pairs():
    found = preference_metrics(LOGP, MASK, SIDE, GROUP, REF)
    assert {k: float(v) for k, v in found.items()} == {
        "logp_chosen": -12, "logp_rejected": -15, "margin": 2, "accuracy": 1
    }  # fmt: skip
    assert float(preference_metrics(LOGP, MASK, SIDE, GROUP, LOGP)["accuracy"]) == 0
    assert float(preference_metrics(LOGP, MASK, -SIDE, GROUP, None)["margin"]) == -3
    assert preference_metrics(LOGP, MASK, 0 * SIDE, GROUP, None) == {}


# ------------------------------------------------------------------------------------------------------ f-divergences


@pytest.mark.parametrize(
    ("kind", "want", "logits"),
    [
        ("forward_kl", (-2.5, -1, -0.4), (-0.3, 0, 0.3)),
        ("reverse_kl", (0.0837, 1, 1.9163), (-0.2382, -0.0825, 0.3207)),
        ("js", (-0.5596, 0, 0.3567), (-0.1252, -0.0199, 0.1451)),
        ("chi2", (-5.25, 0, 0.84), (-0.924, 0.189, 0.735)),
        ("reverse_chi2", (-1.2, 0, 3), (-0.492, -0.378, 0.870)),
    ],
)
def test_derivatives_by_hand_and_by_autograd_of_the_divergence(kind, want, logits):
    p, z = tensor(0.5, 0.3, 0.2), tensor(0.2, 0.3, 0.5).log().requires_grad_()
    pi = z.softmax(-1)
    found = f_prime((pi / p).log().detach(), kind)
    assert found.tolist() == pytest.approx(want, abs=5e-5)
    t = pi / p
    f = {
        "forward_kl": -t.log(),
        "reverse_kl": t * t.log(),
        "js": t * t.log() - (1 + t) * ((1 + t) / 2).log(),
        "chi2": (t - 1).square() / t,
        "reverse_chi2": (t - 1).square(),
    }[kind]
    (by_autograd,) = torch.autograd.grad((p * f).sum(), z)
    by_score = pi * (found - (pi * found).sum())
    torch.testing.assert_close(by_score.detach(), by_autograd, atol=1e-12, rtol=0)
    assert by_autograd.tolist() == pytest.approx(logits, abs=6e-4)


def test_links_of_imitation_by_hand():
    r = tensor(0.5).requires_grad_()
    values, slopes = {}, {}
    for kind in ("tv", "chi2", "hellinger", "kl"):
        values[kind] = float(phi_link(r, kind).detach())
        slopes[kind] = float(torch.autograd.grad(phi_link(r, kind), r)[0])
    assert slopes == pytest.approx({"tv": 1, "chi2": 0.75, "hellinger": 0.4444, "kl": 0.6065}, abs=5e-5)
    assert values == pytest.approx({"tv": 0.5, "chi2": 0.4375, "hellinger": 0.3333, "kl": 0.3935}, abs=5e-5)
    assert float(phi_link(tensor(-5.0), "hellinger")) == pytest.approx(-9) and bool(
        phi_link(tensor(-500.0), "kl") > -1e36
    )
    at_stop = tensor(2.0).requires_grad_()
    assert float(torch.autograd.grad(phi_link(at_stop, "chi2"), at_stop)[0]) == 0


@pytest.mark.parametrize("kind", ["chi2", "hellinger", "kl"])
def test_the_best_offset_is_best(kind):
    r, group = tensor(0.4, -0.3, 0.1, 2.0, -0.7, 0.2), torch.tensor([0, 0, 0, 3, 3, 5])
    c = best_offset(r, group, kind)

    def value(c):
        return torch.stack([(phi_link(r + c, kind) - c)[group == g].mean() for g in (0, 3, 5)])

    for step in (-1e-3, 1e-3):
        assert bool((value(c) > value(c + step)).all())
    assert float(c[5]) == pytest.approx(-0.2, abs=1e-9) and float(c[0]) == float(c[1])
    assert best_offset(r, group, "tv").tolist() == [0] * 6


def test_unknown_kinds_are_refused():
    with pytest.raises(UsageError, match="Did you mean 'reverse_kl'"):
        f_prime(tensor(0.0), "reverse-kl")
    with pytest.raises(UsageError, match="Did you mean 'hellinger'"):
        phi_link(tensor(0.0), "helinger")
