"""CoPG, imitation by implicit rewards, HyPO, DID: numbers by hand and exact identities, in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn.functional import softplus

from polyathlon.agents.parts.advantages import group_advantage
from polyathlon.agents.parts.contrastive_rewards import copg, pairwise_sq
from polyathlon.agents.parts.differential_information import did_distribution, did_entropy, rejected_sampler
from polyathlon.agents.parts.f_divergences import best_offset, phi_link
from polyathlon.agents.parts.implicit_rewards import implicit_q, implicit_sft, implicit_sft_value
from polyathlon.agents.parts.preferences import chosen_nll, dpo, ipo
from polyathlon.agents.parts.score_function import hypo, score_function_kl
from polyathlon.envs.errors import UsageError


def tensor(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def column(*numbers):
    return tensor(*numbers)[:, None]


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def grad_of(loss, at):
    leaf = at.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf), leaf)[0]


SIDE, PAIR = torch.tensor([1, -1]), torch.tensor([0, 0])
ONES = column(1, 1)

# ------------------------------------------------------------------------------------------------------ CoPG


def test_copg_by_hand():
    logp, ref, reward = column(-2, -1.5), column(-2.2, -1), tensor(1, 0.25)
    assert float(copg(logp, ref, ONES, reward, PAIR, beta=0.5)) == pytest.approx(0.16, abs=1e-12)
    grad = grad_of(lambda x: copg(x, ref, ONES, reward, PAIR, beta=0.5), logp)
    assert grad.flatten().tolist() == pytest.approx([-0.4, 0.4], abs=1e-12)


def test_copg_with_a_gap_of_one_half_is_ipo():
    logp, ref = column(-2, -1.5), column(-2.2, -1)
    half = tensor(0.5, 0)

    def square(x):
        return ipo(x, ref, ONES, SIDE, PAIR, tau=0.5, length_norm=False)

    assert float(copg(logp, ref, ONES, half, PAIR, beta=0.5)) == pytest.approx(0.0225, abs=1e-12)
    assert float(square(logp)) == pytest.approx(0.09, abs=1e-12)
    a, b = grad_of(lambda x: copg(x, ref, ONES, half, PAIR, beta=0.5), logp), grad_of(square, logp)
    assert a.flatten().tolist() == pytest.approx([-0.15, 0.15], abs=1e-12)
    torch.testing.assert_close(a, 0.25 * b, atol=1e-15, rtol=0)


def test_copg_is_rloo_with_the_regularised_reward_held_fixed():
    logp, ref, reward, group = (
        drawn(9, 3),
        drawn(9, 3, seed=1),
        drawn(9, seed=2),
        torch.tensor([0, 0, 1, 1, 1, 1, 4, 4, 4]),
    )
    mask, beta = (drawn(9, 3, seed=3) > -1).double(), 0.3
    found = grad_of(lambda x: copg(x, ref, mask, reward, group, beta=beta), logp)
    fixed = reward - beta * ((logp - ref) * mask).sum(1)
    advantage = group_advantage(fixed, group, center="loo")
    rloo = grad_of(lambda x: -(advantage * (x * mask).sum(1)).sum() / 3, logp)
    torch.testing.assert_close(found, rloo, atol=1e-14, rtol=0)


def test_copg_in_its_other_forms_and_invariances():
    logp, ref, reward, beta = drawn(2, 3), drawn(2, 3, seed=1), tensor(1.3, -0.2), 0.4
    mask = torch.ones_like(logp)

    def rho(x):
        return ((x - ref) * mask).sum(1)

    def papers(x):
        gap = rho(x)[0] - rho(x)[1]
        return -(reward[0] - reward[1] - beta / 2 * gap) * gap

    def surrogate(x):
        h = ((reward - beta * rho(x))[0] - (reward - beta * rho(x))[1]).detach()
        return -h * (x[0] - x[1]).sum()

    found = grad_of(lambda x: copg(x, ref, mask, reward, PAIR, beta=beta), logp)
    for other in (papers, surrogate):
        torch.testing.assert_close(found, grad_of(other, logp), atol=1e-14, rtol=0)
    constant = (reward[0] - reward[1]) ** 2 / (2 * beta)
    assert float(copg(logp, ref, mask, reward, PAIR, beta=beta) - papers(logp)) == pytest.approx(float(constant))
    moved = copg(logp, ref, mask, reward + 1000, PAIR, beta=beta)
    assert float(moved) == pytest.approx(float(copg(logp, ref, mask, reward, PAIR, beta=beta)), rel=1e-10)


def test_copg_of_k_samples_is_the_sum_over_pairs_and_its_optimum_is_gibbs():
    regularised, group = drawn(7), torch.tensor([0, 0, 0, 0, 2, 2, 2])
    want = 0.0
    for rows in (range(4), range(4, 7)):
        pairs = itertools.combinations(rows, 2)
        want += sum(float((regularised[i] - regularised[j]) ** 2) for i, j in pairs) / (2 * 0.3 * (len(rows) - 1)) / 2
    assert float(pairwise_sq(regularised, group, beta=0.3)) == pytest.approx(want, abs=1e-12)
    ref, reward = tensor(0.5, 0.3, 0.2), tensor(2.5, 2, 1)
    best = (ref.log() + reward / 0.5).log_softmax(-1)
    rows = (best[:, None], ref.log()[:, None], column(1, 1, 1), reward, torch.zeros(3, dtype=torch.int64))
    assert float(copg(*rows, beta=0.5)) == pytest.approx(0, abs=1e-28)


def test_copg_refuses_answers_without_a_number_and_alone():
    rows = (column(-1, -2), column(-1, -2), ONES)
    with pytest.raises(UsageError, match="1 of 2 have none: give scores"):
        copg(*rows, tensor(1, math.nan), PAIR)
    with pytest.raises(UsageError, match="1 of 2 prompts have one alone"):
        copg(column(-1, -2, 0), column(-1, -2, 0), column(1, 1, 1), tensor(1, 2, 3), torch.tensor([0, 0, 1]))


# ------------------------------------------------------------------------------------------------------ implicit SFT


def test_imitation_with_the_identity_is_sft_whatever_the_offset():
    logp, ref = drawn(4, 3), drawn(4, 3, seed=1)
    mask, group, side = (drawn(4, 3, seed=3) > -1).double(), torch.tensor([0, 0, 1, 1]), torch.tensor([1, 0, -1, 1])
    want = grad_of(lambda x: chosen_nll(x, mask, side, reduce="sum"), logp)
    zero = grad_of(lambda x: implicit_sft(x, ref, mask, side, group, link="tv"), logp)
    batch = grad_of(lambda x: implicit_sft(x, ref, mask, side, group, link="tv", offset="batch"), logp)
    for found in (zero, batch):
        torch.testing.assert_close(found, want, atol=1e-14, rtol=0)
    value = torch.full_like(logp, 1.7)
    found = grad_of(lambda x: implicit_sft_value(x, ref, mask, side, value, link="tv"), logp)
    torch.testing.assert_close(found, want, atol=1e-14, rtol=0)


@pytest.mark.parametrize(("link", "slope"), [("chi2", 0.75), ("hellinger", 0.4444), ("kl", 0.6065), ("tv", 1.0)])
def test_the_weight_of_a_demonstration_by_hand(link, slope):
    logp, ref = column(-1.0), column(-2.0)  # beta rho = .5
    side, group = torch.tensor([1]), torch.tensor([0])
    grad = grad_of(lambda x: implicit_sft(x, ref, column(1), side, group, beta=0.5, link=link), logp)
    assert float(grad) == pytest.approx(-slope, abs=5e-5)


def minimise(loss, *leaves):
    """Minimise by LBFGS; returns the leaves."""
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    optimizer = torch.optim.LBFGS(
        leaves, max_iter=1000, tolerance_grad=1e-13, tolerance_change=1e-18, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        value = loss(*leaves)
        value.backward()
        return value

    for _ in range(3):
        optimizer.step(closure)
    return [leaf.detach() for leaf in leaves]


@pytest.mark.parametrize("link", ["chi2", "hellinger"])
def test_dual_equals_primal(link):
    """min over pi of D_f(pi, E) + beta KL(pi, ref) is max over (pi, c) of E_E[phi(beta rho + c)] - c."""
    beta, ref, expert = 0.3, drawn(5).log_softmax(0), drawn(5, seed=1).log_softmax(0)

    def primal(z):
        log_pi = z.log_softmax(0)
        t = (log_pi - expert).exp()
        f = (t - 1).square() if link == "chi2" else (t.sqrt() - 1).square()
        return (expert.exp() * f).sum() + beta * (log_pi.exp() * (log_pi - ref)).sum()

    def dual(z, c):
        return -((expert.exp() * phi_link(beta * (z.log_softmax(0) - ref) + c, link)).sum() - c)

    z, c = torch.zeros(5, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    least, most = primal(*minimise(primal, z)), -dual(*minimise(dual, z, c))
    assert float(least) == pytest.approx(float(most), abs=1e-7) and float(least) > 0.05


def test_the_closed_offset_of_chi2_is_a_variance_penalty():
    logp, ref = drawn(6, 2), drawn(6, 2, seed=1)
    mask, side, group, beta = (
        torch.ones_like(logp),
        torch.ones(6, dtype=torch.int64),
        torch.tensor([0, 0, 0, 1, 1, 1]),
        0.4,
    )
    rho = (logp - ref).sum(1).view(2, 3)
    want = -(beta * rho.mean(1) - beta**2 / 4 * rho.var(1, unbiased=False)).mean() / beta
    found = implicit_sft(logp, ref, mask, side, group, beta=beta, link="chi2", offset="group")
    assert float(found) == pytest.approx(float(want), abs=1e-12)

    # the offset is at its best, so that it may be held constant in the gradient
    def whole(x):
        r = beta * (x - ref).sum(1)
        c = -torch.stack([r[:3].mean(), r[3:].mean()]).repeat_interleave(3)
        return -(phi_link(r + c, "chi2") - c).mean() / beta

    a = grad_of(lambda x: implicit_sft(x, ref, mask, side, group, beta=beta, offset="group"), logp)
    torch.testing.assert_close(a, grad_of(whole, logp), atol=1e-13, rtol=0)
    with pytest.raises(UsageError, match="each prompt has one"):
        implicit_sft(logp, ref, mask, side, torch.arange(6), offset="group")
    with pytest.raises(UsageError, match="all are rejected"):
        implicit_sft(logp, ref, mask, -side, group)


def test_a_learned_offset_is_read_before_the_first_token_and_is_learnt():
    logp, ref = column(-1.0, -2.0).expand(2, 3).contiguous(), column(-1.5, -1.0).expand(2, 3)
    mask, side = tensor([0, 1, 1], [1, 1, 0]), torch.tensor([1, 1])
    value = tensor([9, 0.2, 9], [-0.1, 9, 9]).requires_grad_()
    r, c = 0.3 * tensor(1.0, -2.0), tensor(0.2, -0.1)
    loss = implicit_sft_value(logp, ref, mask, side, value)
    assert float(loss.detach()) == pytest.approx(float(-(phi_link(r + c) - c).mean() / 0.3), abs=1e-12)
    (grad,) = torch.autograd.grad(loss, value)
    assert (grad != 0).tolist() == [[False, True, False], [True, False, False]]
    best = best_offset(r, torch.tensor([0, 1]), "chi2")
    value = torch.zeros_like(value).scatter(1, mask.argmax(1)[:, None], best[:, None]).requires_grad_()
    (grad,) = torch.autograd.grad(implicit_sft_value(logp, ref, mask, side, value), value)
    assert float(grad.abs().max()) < 1e-12


def test_logits_as_values():
    logits, tokens = drawn(4, 5), torch.tensor([1, 3, 0, 2])
    q, v = implicit_q(logits, 0.7)
    taken = (q.gather(1, tokens[:, None])[:, 0] - v).sum()
    assert float(taken) == pytest.approx(
        0.7 * float(logits.log_softmax(-1).gather(1, tokens[:, None]).sum()), abs=1e-12
    )


# ------------------------------------------------------------------------------------------------------ HyPO


def answers_of(z):
    """All answers of two tokens under a table z[3, 3 + 9]: log-probabilities [9, 2] of their tokens."""
    first, second = z[0].log_softmax(-1), z[1:].log_softmax(-1)
    return torch.stack([torch.stack([first[a], second[a, b]]) for a in range(3) for b in range(3)])


@pytest.mark.parametrize("rtg", [False, True])
def test_the_expected_gradient_is_that_of_the_exact_divergence(rtg):
    z, ref = drawn(4, 3), answers_of(drawn(4, 3, seed=1))
    p = answers_of(z).sum(1).exp()

    def exact(x):
        logp = answers_of(x)
        return (logp.sum(1).exp() * (logp - ref).sum(1)).sum()

    want = grad_of(exact, z)
    draws = (
        [(i,) for i in range(9)] if rtg else list(itertools.product(range(9), repeat=2))
    )  # pairs of samples for the baseline

    def expected(x):
        total = torch.zeros((), dtype=torch.float64)
        for rows in draws:
            index = torch.tensor(rows)
            group = torch.zeros(len(rows), dtype=torch.int64)
            mask = torch.ones(len(rows), 2, dtype=torch.float64)
            total = total + p[index].prod() * score_function_kl(answers_of(x)[index], ref[index], mask, group, rtg=rtg)
        return total

    found = grad_of(expected, z)
    torch.testing.assert_close(found, want, atol=1e-14, rtol=0)
    assert float(expected(z)) == pytest.approx(float(exact(z)), abs=1e-12)
    at_start = grad_of(
        lambda x: score_function_kl(answers_of(x), answers_of(z), torch.ones_like(ref), torch.zeros(9).long(), rtg=rtg),
        z,
    )
    assert float(at_start.abs().max()) == 0


def test_leave_one_out_weights_by_hand():
    weights = group_advantage(tensor(0.4, -0.1, 0, 0.7), torch.zeros(4, dtype=torch.int64), center="loo")
    assert weights.tolist() == pytest.approx([0.2, -0.4667, -0.3333, 0.6], abs=5e-5)
    logp, ref = column(0.4, -0.1, 0, 0.7), torch.zeros(4, 1, dtype=torch.float64)
    grad = grad_of(lambda x: score_function_kl(x, ref, torch.ones_like(ref), torch.zeros(4).long()), logp)
    torch.testing.assert_close(grad[:, 0], weights / 4)
    alone = grad_of(lambda x: score_function_kl(x, ref, torch.ones_like(ref), torch.arange(4)), logp)
    torch.testing.assert_close(alone, logp / 4)


def test_hypo_is_dpo_and_a_divergence_on_fresh_answers():
    logp, ref, mask = drawn(5, 2), drawn(5, 2, seed=1), torch.ones(5, 2, dtype=torch.float64)
    side, group = torch.tensor([1, -1, 0, 0, 0]), torch.tensor([0, 0, 1, 1, 1])
    plain = dpo(logp, ref, mask, side, group, beta=0.1)
    torch.testing.assert_close(hypo(logp, ref, mask, side, group, lam=0.0), plain)
    fresh = score_function_kl(logp[2:], ref[2:], mask[2:], group[2:])
    torch.testing.assert_close(hypo(logp, ref, mask, side, group, lam=0.3), plain + 0.3 * fresh)
    torch.testing.assert_close(hypo(logp[:2], ref[:2], mask[:2], side[:2], group[:2]), plain)
    torch.testing.assert_close(hypo(logp[2:], ref[2:], mask[2:], side[2:], group[2:], lam=0.3), 0.3 * fresh)


# ------------------------------------------------------------------------------------------------------ DID


def test_did_and_its_rejected_sampler_by_hand():
    ref, target = tensor(0.5, 0.3, 0.2).log(), tensor(0.7, 0.2, 0.1).log()
    q = did_distribution(target, ref)
    assert q.exp().tolist() == pytest.approx([0.5455, 0.2597, 0.1948], abs=5e-5)
    assert float(-(q.exp() * q).sum()) == pytest.approx(0.9994, abs=5e-5)
    assert rejected_sampler(target, ref, 0.5).exp().tolist() == pytest.approx([0.6049, 0.2505, 0.1446], abs=5e-5)
    torch.testing.assert_close(rejected_sampler(target, ref, 1.0), ref)
    other = rejected_sampler(target, ref, 0.5, chosen=ref)
    torch.testing.assert_close(other, (ref + 0.5 * (ref - target)).log_softmax(-1))


def js(a, b):
    middle = torch.logaddexp(a, b) - math.log(2)
    return float((a.exp() * (a - middle)).sum() + (b.exp() * (b - middle)).sum()) / 2


def test_labels_by_did_let_dpo_recover_the_target_and_nothing_else():
    """K = 16, beta .5: pairs of every two answers, labelled by the ratio; and pairs of the rejected-sampler."""
    K, beta = 16, 0.5
    ref, target = drawn(K).log_softmax(0), drawn(K, seed=1).log_softmax(0)
    q = did_distribution(target, ref)
    label = (beta * (q[:, None] - q[None])).sigmoid()

    def by_labels(z, log_ref=ref):
        rho = beta * (z.log_softmax(0) - log_ref)
        margin = rho[:, None] - rho[None]
        return (label * softplus(-margin)).sum()

    start = torch.zeros(K, dtype=torch.float64)
    (found,) = minimise(by_labels, start)
    assert js(found.log_softmax(0), target) < 1e-10
    (without,) = minimise(lambda z: by_labels(z, torch.zeros_like(ref)), start)
    assert js(without.log_softmax(0), target) > 1e-2

    def by_samplers(rejected):
        def loss(z):
            rho = beta * (z.log_softmax(0) - ref)
            return (target.exp()[:, None] * rejected.exp()[None] * softplus(rho[None] - rho[:, None])).sum()

        return js(minimise(loss, start)[0].log_softmax(0), target)

    assert by_samplers(rejected_sampler(target, ref, beta)) < 1e-10
    assert by_samplers(ref) > 1e-2 and by_samplers(torch.zeros_like(ref).log_softmax(0)) > 1e-2


def test_sharpening_has_the_lower_did_entropy_exactly_and_by_samples():
    ref = -torch.arange(1, 101, dtype=torch.float64).log()
    ref = ref.log_softmax(0)
    entropies = []
    for power in (1.5, 0.5):
        target = (power * ref).log_softmax(0)
        q = did_distribution(target, ref)
        entropies.append(float(-(q.exp() * q).sum()))
        index = torch.multinomial(target.exp(), 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
        found, size = did_entropy(
            target[index][:, None], ref[index][:, None], torch.ones(200_000, 1, dtype=torch.float64)
        )
        assert float(found) == pytest.approx(entropies[-1], abs=0.03) and 1 < float(size) < 200_000
    assert entropies == pytest.approx([4.4357, 4.5368], abs=5e-5)


def test_did_entropy_is_averaged_over_prompts_and_tells_of_heavy_tails():
    logp, ref = column(-1, -2, -1, -3), column(-1, -2, -1, -3) - column(0, 0, 0.5, -0.25)
    mask, group = column(1, 1, 1, 1), torch.tensor([0, 0, 7, 7])
    parts = [did_entropy(logp[i : i + 2], ref[i : i + 2], mask[i : i + 2]) for i in (0, 2)]
    found = did_entropy(logp, ref, mask, group)
    for k in (0, 1):
        assert float(found[k]) == pytest.approx(float((parts[0][k] + parts[1][k]) / 2), abs=1e-12)
    far = did_entropy(column(-1, -400), column(-1, -900), column(1, 1))
    assert float(far[1]) == pytest.approx(1) and math.isfinite(float(far[0]))
