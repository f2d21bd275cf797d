"""DNO and Nash-MD: worked values in float64, exact steps on tables, and gradients by enumeration."""

from __future__ import annotations

import itertools

import pytest
import torch

from polyathlon.agents.parts.nash import (
    mixture_logits,
    nash_md,
    nash_md_step,
    regularised_equilibrium,
    win_rate_vs_group,
)
from polyathlon.agents.parts.preferences import dno, dpo
from polyathlon.envs.errors import UsageError


def d(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


SIDE, PAIR, ONES = torch.tensor([1, -1]), torch.tensor([0, 0]), torch.ones(2, 1, dtype=torch.float64)
GAME = torch.tensor([[0.5, 0.8, 0.1], [0.2, 0.5, 0.9], [0.9, 0.1, 0.5]], dtype=torch.float64)
CYCLE = torch.tensor([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]], dtype=torch.float64)
MU, UNIFORM = d(0.6, 0.3, 0.1), d(1, 1, 1) / 3


def kl(p, q):
    return float((p * (p / q).log()).sum())


# ---------------------------------------------------------------------------------------------------------- DNO


def of_pair(score, loss=dno, **words):
    logp, given = d(-0.7, -1.1)[:, None].requires_grad_(), () if loss is dpo else (d(*score),)
    value = loss(logp, d(-1, -1)[:, None], ONES, SIDE, PAIR, *given, **words)
    return float(value.detach()), torch.autograd.grad(value, logp)[0].flatten()


def test_the_worked_pair_of_dno():
    value, gradient = of_pair((0.7, 0.4), eta=0.5)  # log-ratios .3 and -.1: d = .2, z = sigmoid(.3) = .574443
    assert value == pytest.approx(0.683250, abs=5e-7)
    torch.testing.assert_close(gradient, 0.5 * d(-0.0246085, 0.0246085), atol=5e-8, rtol=0)  # eta (sigmoid(d) - z)


def test_dno_at_z_of_one_is_dpo_and_it_is_symmetric():
    for one, other in zip(of_pair((1e3, 0.0), eta=0.5), of_pair((), dpo, beta=0.5), strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    logp, ref = d(-0.7, -1.1)[:, None], d(-1, -1)[:, None]
    swapped = dno(logp.flip(0), ref, ONES, SIDE, PAIR, d(0.4, 0.7), eta=0.5)
    assert float(swapped) == pytest.approx(of_pair((0.7, 0.4), eta=0.5)[0], abs=1e-15)
    with pytest.raises(UsageError, match="how often each answer wins"):
        of_pair((float("nan"), 0.4))


def improved(pi, eta):
    """The exact step of DNO: pi exp(r / eta), r the win rates against pi."""
    return (pi.log() + (GAME @ pi) / eta).softmax(0)


def test_dno_is_least_at_the_exact_step_and_that_step_wins_by_its_bound():
    eta, pi = 0.2, MU
    for seen in (0.536, 0.576, 0.618):
        rate, new = GAME @ pi, improved(pi, eta)
        first, second = zip(*itertools.combinations(range(3), 2))
        rows = torch.tensor([*first, *second])
        logp = new.log()[rows][:, None].requires_grad_()
        sides, groups = torch.tensor([1, 1, 1, -1, -1, -1]), torch.tensor([0, 1, 2, 0, 1, 2])
        loss = dno(logp, pi.log()[rows][:, None], torch.ones(6, 1), sides, groups, rate[rows], eta=eta)
        assert torch.autograd.grad(loss, logp)[0].abs().max() < 1e-16
        won = float(new @ GAME @ pi)
        assert won == pytest.approx(seen, abs=5e-4) and won >= 0.5 + eta * kl(new, pi)
        pi = new


def test_the_average_iterate_of_dno_is_hard_to_beat_where_the_last_is_not():
    pi, total = MU, torch.zeros(3, dtype=torch.float64)
    for _ in range(1000):
        total, pi = total + pi, improved(pi, 0.2)
    assert float((GAME @ (total / 1000)).max()) < 0.51 and float((GAME @ pi).max()) > 0.7


def test_win_rates_are_those_within_a_group():
    wins = torch.full((5, 5), 0.5, dtype=torch.float64)
    wins[0, 1], wins[1, 0], wins[0, 2], wins[2, 0], wins[1, 2], wins[2, 1] = 1.0, 0.0, 0.25, 0.75, 0.6, 0.4
    wins[0, 3] = wins[3, 1] = float("nan")  # across groups: not read
    rates = win_rate_vs_group(wins, torch.tensor([7, 7, 7, 2, 2]))
    torch.testing.assert_close(rates, d(0.625, 0.3, 0.575, 0.5, 0.5))
    assert win_rate_vs_group(wins[:1, :1], torch.tensor([0])).tolist() == [0.5]


# ---------------------------------------------------------------------------------------------------------- Nash-MD


def test_the_worked_step_of_nash_md():
    c = 5 / 9
    game = torch.tensor([[0.5, c, 1 - c], [1 - c, 0.5, c], [c, 1 - c, 0.5]], dtype=torch.float64)
    mix = mixture_logits(MU.log(), UNIFORM.log(), mixture=0.5).softmax(0)  # eta tau = .5
    torch.testing.assert_close(mix, d(0.4727, 0.3343, 0.1930), atol=5e-5, rtol=0)
    torch.testing.assert_close(game @ mix, d(0.5078, 0.4845, 0.5077), atol=5e-5, rtol=0)
    found = nash_md_step(MU, UNIFORM, game, tau=0.1, eta=5.0)
    torch.testing.assert_close(found, d(0.4909, 0.3088, 0.2003), atol=5e-5, rtol=0)
    p = MU @ game @ MU
    assert float(p) == pytest.approx(0.5, abs=1e-15)  # P(pi > pi)


@pytest.mark.parametrize(("game", "mu", "tau"), [(GAME, MU, 0.1), (CYCLE, MU, 0.05), (GAME, UNIFORM, 0.02)])
def test_the_equilibrium_is_a_fixed_point(game, mu, tau):
    pi = regularised_equilibrium(game, mu, tau=tau)
    assert (pi - (mu.log() + game @ pi / tau).softmax(0)).abs().max() < 1e-9
    if game is GAME and tau == 0.1:
        assert float((game @ pi).max()) == pytest.approx(0.590, abs=5e-4)


def test_nash_md_converges_by_its_bound():
    tau, pi, target = 0.1, MU, regularised_equilibrium(GAME, MU, tau=0.1)
    for t in range(1000):
        pi = nash_md_step(pi, MU, GAME, tau=tau, eta=2 / (tau * (t + 2)))
        assert kl(target, pi) <= 8 / (tau**2 * (t + 2))
        if t == 99:
            assert kl(target, pi) < 1e-4
    assert kl(target, pi) < 1e-6


def test_nash_md_with_long_steps_comes_nearer_than_self_play():
    tau, eta, nash, alone, total = 0.05, 2.0, MU, MU, torch.zeros(3, dtype=torch.float64)
    target = regularised_equilibrium(CYCLE, MU, tau=tau)
    for _ in range(4000):
        nash = nash_md_step(nash, MU, CYCLE, tau=tau, eta=eta)
        log_pi = (1 - eta * tau) * alone.log() + eta * tau * MU.log()
        alone = (log_pi + eta * (CYCLE @ alone)).softmax(0)
        total += alone
    assert kl(target, nash) == pytest.approx(0.0033, abs=2e-4)
    assert kl(target, alone) > 0.03 and kl(target, total / 4000) < 1e-4  # only its average is there


def two_tokens():
    """Logits of a policy and a reference over answers of two tokens of three symbols, and the answers."""
    draw = torch.Generator().manual_seed(3)
    made = [torch.randn(4, 3, generator=draw, dtype=torch.float64) for _ in range(2)]
    return made[0].requires_grad_(), made[1], list(itertools.product(range(3), repeat=2))


def token_logps(z, answer):
    return torch.stack([z[0].log_softmax(0)[answer[0]], z[1 + answer[0]].log_softmax(0)[answer[1]]])


def expected_gradient(loss_of):
    """Sum over all answers of p(y) times the gradient of the loss of y alone."""
    z, ref, answers = two_tokens()
    total = torch.zeros_like(z)
    for answer in answers:
        logp, other = token_logps(z, answer)[None], token_logps(ref, answer)[None]
        (gradient,) = torch.autograd.grad(loss_of(logp, other, answer), z)
        total += logp.detach().sum().exp() * gradient
    return total


def test_reward_to_go_gives_the_gradient_of_whole_answers_by_enumeration():
    tau, win = 0.3, lambda answer: (answer[0] + 2 * answer[1]) / 6
    one, group = torch.ones(1, 2, dtype=torch.float64), torch.tensor([0])
    found = expected_gradient(lambda lp, ref, y: nash_md(lp, ref, one, group, d(win(y)), tau=tau))
    z, ref, answers = two_tokens()
    value = z.new_zeros(())
    for answer in answers:
        lp, other = token_logps(z, answer).sum(), token_logps(ref, answer).sum()
        value = value + lp.exp() * (win(answer) - tau * (lp - other))
    (wanted,) = torch.autograd.grad(-value, z)
    assert (found - wanted).abs().max() < 1e-15
    by_own = expected_gradient(lambda lp, ref, y: ((lp - ref).detach() * lp).sum())  # each token by its own log-ratio
    whole = expected_gradient(lambda lp, ref, y: nash_md(lp, ref, one, group, d(0.5), tau=1.0))
    assert (by_own - whole).abs().max() > 0.01


def test_nash_md_reads_its_own_tokens_alone():
    logp = d(-1, -2, -3, -0.5, -1, -9).view(2, 3).requires_grad_()
    ref, mask = d(-2, -1, -3, -1, -1, 5).view(2, 3), d(1, 1, 1, 1, 1, 0).view(2, 3)
    loss = nash_md(logp, ref, mask, PAIR, d(1.0, 0.25), tau=0.1)
    (gradient,) = torch.autograd.grad(loss, logp)
    # -(win - 1/2 - tau K_t) / 2 with K = (0, -1, 0) and (.5, 0)
    wanted = -d(0.5, 0.6, 0.5, -0.3, -0.25, 0).view(2, 3) / 2
    torch.testing.assert_close(gradient, wanted)


def test_mixtures_of_logits():
    a, b = torch.randn(2, 4, 7, generator=torch.Generator().manual_seed(0))
    assert mixture_logits(a, b, mixture=0.0) is a and mixture_logits(a, b, mixture=1.0) is b
    mixed = mixture_logits(a, b, mixture=0.25).softmax(-1)
    wanted = a.softmax(-1) ** 0.75 * b.softmax(-1) ** 0.25
    torch.testing.assert_close(mixed, wanted / wanted.sum(-1, keepdim=True))
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match=r"from 0 \(the policy itself\)"):
            mixture_logits(a, b, mixture=wrong)


def test_an_equilibrium_that_is_not_found_says_so_and_a_larger_tau_finds_it():
    """Newton's method diverges here; LAPACK's complaint about NaN came out as an internal error of torch."""
    cycle = d(0.5, 0.99, 0.01, 0.01, 0.5, 0.99, 0.99, 0.01, 0.5).view(3, 3)
    for steps in (1, 400):
        with pytest.raises(UsageError, match="raise tau"):
            regularised_equilibrium(cycle, d(0.4, 0.3, 0.3), tau=0.0005, steps=steps)
    assert regularised_equilibrium(cycle, d(0.4, 0.3, 0.3), tau=0.1).sum() == pytest.approx(1.0)
