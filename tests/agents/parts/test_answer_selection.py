"""Selection of answers, losses of reward models, rewards of RLHF: numbers by hand, in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from polyathlon.agents.parts.answer_selection import (
    best_of_n,
    best_of_n_kl,
    clamped_reward,
    gibbs_accept,
    select_best,
    select_pair,
)
from polyathlon.agents.parts.kl_rewards import KLReward, kl_token_reward
from polyathlon.agents.parts.reward_losses import bradley_terry, reward_loss, score_barrier
from polyathlon.agents.parts.token_returns import gae
from polyathlon.envs.errors import UsageError


def tensor(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def grad_of(loss, at):
    leaf = at.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf), leaf)[0]


# ------------------------------------------------------------------------------------------------------ selection


def test_best_of_n_by_hand():
    assert [best_of_n_kl(n) for n in (2, 4, 16, 64)] == pytest.approx([0.1931, 0.6363, 1.8351, 3.1745], abs=5e-5)
    pi = tensor(0.5, 0.3, 0.2)
    pmf = torch.zeros(3, dtype=torch.float64)
    for draw in itertools.product(range(3), repeat=4):
        reward = torch.tensor(draw, dtype=torch.float64)
        best = draw[int(best_of_n(reward, torch.zeros(4, dtype=torch.int64)).argmax())]
        pmf[best] += pi[list(draw)].prod()
    assert pmf.tolist() == pytest.approx([0.0625, 0.3471, 0.5904], abs=5e-5)
    assert float((pmf * (pmf / pi).log()).sum()) == pytest.approx(0.5598, abs=5e-5)
    with pytest.raises(UsageError, match="at least 1"):
        best_of_n_kl(0)


def test_rows_of_the_best_and_of_pairs():
    reward, group = tensor(1, 3, 3, 2, 5, 4, 7, 7), torch.tensor([2, 2, 2, 2, 0, 0, 5, 5])
    assert select_best(reward, group).tolist() == [4, 1, 6]
    assert best_of_n(reward, group).tolist() == [0, 1, 0, 0, 1, 0, 1, 0]
    assert [x.tolist() for x in select_pair(reward, group)] == [[4, 1], [5, 0]]
    assert [x.tolist() for x in select_pair(reward, group, min_gap=2)] == [[1], [0]]
    won, lost = select_pair(reward, group, mode="all")
    assert set(zip(won.tolist(), lost.tolist())) == {(1, 0), (2, 0), (3, 0), (1, 3), (2, 3), (4, 5)}
    reward = tensor(0, 1, 5, 6)
    assert [x.tolist() for x in select_pair(reward, torch.zeros(4).long(), mode="margin")] == [[2], [1]]
    assert len(select_pair(tensor(1, 1), torch.zeros(2).long())[0]) == 0


def test_rejection_sampling_by_hand():
    pi, reward = tensor(0.5, 0.3, 0.2), tensor(0, 1, 2)
    uniform = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    accept = torch.stack([gibbs_accept(r.expand(10_000), uniform, beta=1.0, r_max=2.0).mean() for r in reward])
    assert accept.tolist() == pytest.approx([0.1353, 0.3679, 1], abs=1e-4)
    kept = pi * accept
    assert float(kept.sum()) == pytest.approx(0.3780, abs=1e-4)
    assert (kept / kept.sum()).tolist() == pytest.approx([0.1790, 0.2919, 0.5291], abs=1e-4)
    assert gibbs_accept(reward, tensor(0.9, 0.9, 0.9), beta=1.0).tolist() == [0, 0, 1]
    with pytest.raises(UsageError, match="give the largest"):
        gibbs_accept(reward, uniform[:3], r_max=1.0)


# ------------------------------------------------------------------------------------------------------ reward models, RLHF-PPO


def test_bradley_terry_by_hand():
    d = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    loss = (3 * bradley_terry(d, 0 * d) + bradley_terry(0 * d, d)).sum()
    assert float(loss.detach()) == pytest.approx(4 * math.log(2))
    at_best = tensor(math.log(3)).requires_grad_()
    loss = (3 * bradley_terry(at_best, 0 * at_best) + bradley_terry(0 * at_best, at_best)).sum()
    assert abs(float(torch.autograd.grad(loss, at_best)[0])) < 1e-12 and math.log(3) == pytest.approx(1.0986, abs=5e-5)
    labelled = bradley_terry(at_best, 0 * at_best, label=tensor(0.75))
    assert abs(float(torch.autograd.grad(labelled.sum(), at_best)[0])) < 1e-12


def test_what_holds_the_scores_level():
    w, l = tensor(1.0, -2.0), tensor(0.5, 1.0)
    plain = bradley_terry(w, l)
    torch.testing.assert_close(bradley_terry(w + 9, l + 9), plain)
    torch.testing.assert_close(bradley_terry(w, l, margin=tensor(0.5, 0)), -logsigmoid(w - l - tensor(0.5, 0)))
    torch.testing.assert_close(bradley_terry(w, l, centring=0.01), plain + 0.01 * (w + l).square())
    assert float(bradley_terry(w + 9, l + 9, centring=0.01)[0]) > float(plain[0])
    focal = bradley_terry(w, l, focal=2.0)
    right = (w - l).sigmoid()
    torch.testing.assert_close(focal[0], plain[0] * (1 - 2 * (right[0] - 0.5)) ** 2)
    torch.testing.assert_close(focal[1], plain[1])
    torch.testing.assert_close(bradley_terry(w, l, barrier=0.1), plain + 0.05 * (score_barrier(w) + score_barrier(l)))


def test_the_barrier_is_smooth_where_its_tangent_begins():
    assert float(score_barrier(tensor(0.0))) == 0
    assert float(score_barrier(tensor(3.0))) == pytest.approx(-math.log((1 - 3 / 5) * (1 + 3 / 5)))
    inside, outside = (grad_of(lambda x: score_barrier(x).sum(), tensor(4.5 + step)) for step in (-1e-9, 1e-9))
    assert float(inside) == pytest.approx(float(outside), abs=1e-6)
    assert float(score_barrier(tensor(-50.0))) == float(score_barrier(tensor(50.0))) < 100


def test_the_reward_loss_reads_pairs_and_their_margins():
    score, side, group = tensor(0.5, 2.0, 1.0, 0.0), torch.tensor([-1, 1, 1, -1]), torch.tensor([0, 0, 1, 1])
    assert float(reward_loss(score, side, group)) == pytest.approx(float(-logsigmoid(tensor(1.5, 1)).mean()))
    margin = tensor(0.25, 0.25, math.nan, math.nan)
    assert float(reward_loss(score, side, group, margin)) == pytest.approx(float(-logsigmoid(tensor(1.25, 1)).mean()))
    smoothed = reward_loss(score, side, group, smoothing=0.1)
    want = -0.9 * logsigmoid(tensor(1.5, 1)) - 0.1 * logsigmoid(-tensor(1.5, 1))
    assert float(smoothed) == pytest.approx(float(want.mean()))


def test_the_reward_loss_reads_how_likely_the_chosen_answer_is_the_better_one():
    score, side, group = tensor(0.5, 2.0, 1.0, 0.0), torch.tensor([-1, 1, 1, -1]), torch.tensor([0, 0, 1, 1])
    label, p = tensor(0.7, 0.7, math.nan, math.nan), tensor(0.7, 1.0)
    for e in (0.0, 0.2):
        q = p * (1 - e) + (1 - p) * e
        want = (-q * logsigmoid(tensor(1.5, 1)) - (1 - q) * logsigmoid(-tensor(1.5, 1))).mean()
        assert float(reward_loss(score, side, group, label=label, smoothing=e)) == pytest.approx(float(want))


def test_the_rewards_of_rlhf_by_hand():
    """R = (-.01, .02, 1), V = (.2, .4, .5), gamma 1, lambda .95."""
    reward, value, mask = tensor([-0.01, 0.02, 1]), tensor([0.2, 0.4, 0.5]), tensor([1, 1, 1])
    advantage, returns = gae(reward, value, mask, 1.0, 0.95)
    assert advantage[0].tolist() == pytest.approx([0.7552, 0.5950, 0.5], abs=5e-5)
    assert returns[0].tolist() == pytest.approx([0.9552, 0.9950, 1.0], abs=5e-5)
    old, ref = tensor([-1, -2, -3]), tensor([-1.2, -1.6, -3])
    found = kl_token_reward(old, ref, tensor([1, 1, 0]), beta=0.05)
    assert found[0].tolist() == pytest.approx([-0.01, 0.02, 0])
    assert clamped_reward(tensor(-30, 0.5, 12), limit=10.0).tolist() == [20, 0, -2]


def test_the_coefficient_follows_its_target_and_resumes():
    old, ref, mask = tensor([-1, -1]), tensor([-2, -3]), tensor([1, 1])  # a divergence of 3
    part = KLReward(beta=0.1, target=2.0, horizon=10)
    part.after(old, ref, mask)
    assert part.beta == pytest.approx(0.1 * (1 + 0.2 / 10))  # clipped at .2
    part.after(old, old, mask)
    assert part.beta == pytest.approx(0.1 * 1.02 * 0.98)
    again = KLReward(beta=0.5, target=2.0)
    again.load_state_dict(part.state_dict())
    torch.testing.assert_close(again(old, ref, mask), -part.beta * (old - ref))
    fixed = KLReward(beta=0.1)
    fixed.after(old, ref, mask)
    assert fixed.beta == 0.1
