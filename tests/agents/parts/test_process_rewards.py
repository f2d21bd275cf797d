"""PRIME and Kimi k1.5's mirror descent against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from polyathlon.agents.parts.advantages import group_advantage, masked_whiten
from polyathlon.agents.parts.aggregation import agg_loss
from polyathlon.agents.parts.mirror_descent import (
    average_weights,
    length_pairs,
    length_preference,
    mirror_loss,
    shortest_correct,
)
from polyathlon.agents.parts.process_rewards import implicit_bce, loo_token_rewards, prime_advantage, token_rewards

MASK = torch.tensor([[1.0, 1, 0], [1, 1, 1]], dtype=torch.float64)
Q = torch.tensor([[0.2, 0.4, 7.0], [0.1, 0.1, 0.1]], dtype=torch.float64)  # the 7 is padding
ZERO, PAIR, ACC = (
    torch.zeros(2, 3, dtype=torch.float64),
    torch.tensor([0, 0]),
    torch.tensor([1.0, 0], dtype=torch.float64),
)


def close(found, wanted, atol=1e-6):
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), atol=atol, rtol=0)


def test_returns_of_two_streams_by_hand():
    plain = token_rewards(Q, ZERO, MASK, normalize=False)
    close(loo_token_rewards(plain, MASK, PAIR), [[0, 0.4, 0], [-0.2, -0.2, -0.2]])
    words = {"normalize": False, "whiten": False}
    close(prime_advantage(Q, ZERO, ACC, MASK, PAIR, **words), [[1.4, 1.4, 0], [-1.6, -1.4, -1.2]])
    found = prime_advantage(Q, ZERO, ACC, MASK, PAIR, normalize=False)
    close(found, [[1.090817, 1.090817, 0], [-0.857071, -0.727211, -0.597352]])
    close(prime_advantage(Q, ZERO, 0 * ACC, MASK, PAIR, **words), [[0.4, 0.4, 0], [-0.6, -0.4, -0.2]])


def test_normalised_rewards_by_hand():
    close(token_rewards(Q, ZERO, MASK), [[0.333333, 0.666666, 0], [0.166666] * 3])
    close(
        prime_advantage(Q, ZERO, 0 * ACC, MASK, PAIR, whiten=False),
        [[0.666666, 0.666666, 0], [-0.999998, -0.666666, -0.333333]],
        3e-6,
    )
    found = prime_advantage(Q, ZERO, ACC, MASK, PAIR)
    close(found, [[1.086429, 1.086429, 0], [-0.905357, -0.724286, -0.543215]])


def test_discounts_and_limits():
    words = {"normalize": False, "whiten": False}
    found = prime_advantage(Q, ZERO, ACC, MASK, PAIR, process_gamma=0.5, outcome_gamma=0.5, **words)
    close(found, [[0.2 + 0.5, 1.4, 0], [-0.35 - 0.25, -0.3 - 0.5, -1.2]])
    # a process model that is the reference: outcomes alone, the leave-one-out advantage on every token
    outcome = group_advantage(ACC, PAIR, center="loo")[:, None] * MASK
    torch.testing.assert_close(prime_advantage(ZERO, ZERO, ACC, MASK, PAIR), masked_whiten(outcome, MASK))
    assert (prime_advantage(ZERO, ZERO, ACC * 0 + 1, MASK, PAIR) == 0).all()
    swapped = prime_advantage(Q.flip(0), ZERO, ACC.flip(0), MASK.flip(0), PAIR)
    torch.testing.assert_close(swapped.flip(0), prime_advantage(Q, ZERO, ACC, MASK, PAIR))
    alone = torch.tensor([0, 1])
    torch.testing.assert_close(loo_token_rewards(Q * MASK, MASK, alone), Q * MASK)


def test_the_loss_of_outcomes_by_hand():
    q = torch.tensor([[1.5, 0.5, 9.0], [-1.0, 0, 0]], dtype=torch.float64)
    assert float(implicit_bce(q, ZERO, MASK, ACC, beta=0.05)) == pytest.approx(0.656428, abs=1e-6)
    assert float(implicit_bce(q + 3, ZERO + 3, MASK, ACC)) == pytest.approx(0.656428, abs=1e-6)  # a log-ratio
    leaf = q.clone().requires_grad_()
    (found,) = torch.autograd.grad(implicit_bce(leaf, ZERO, MASK, ACC), leaf)
    assert (found[0, :2] < 0).all() and (found[1] > 0).all() and found[0, 2] == 0


# ------------------------------------------------------------------------------------------------ Kimi k1.5 (B10)

REWARD, U = torch.tensor([1.0, 0, 0, 1], dtype=torch.float64), torch.tensor([0.2, -0.1, 0.3, 0], dtype=torch.float64)
ONE = torch.zeros(4, dtype=torch.int64)


def loss_of(u, **words):
    two = torch.stack([0.25 * u, 0.75 * u, 0 * u + 9], 1)  # the third is padding
    mask = torch.tensor([1.0, 1, 0], dtype=torch.float64).expand(4, 3)
    return mirror_loss(two, torch.zeros_like(two), mask, REWARD, ONE, **words)


def test_mirror_descent_by_hand():
    u = U.clone().requires_grad_()
    loss = loss_of(u, tau=0.5)
    assert loss.item() == pytest.approx(0.00875)
    (found,) = torch.autograd.grad(loss, u)
    close(found, [-0.1, 0.1125, 0.1625, -0.125])
    square = ((REWARD - 0.5 - 0.5 * u).square().mean()) / (2 * 0.5)
    torch.testing.assert_close(torch.autograd.grad(square, u)[0], found)


@pytest.mark.parametrize(("tau", "c"), [(0.1, 0.9307), (1.0, 0.6201), (1000.0, 0.5001)])
def test_the_partition_function(tau, c):
    u = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(loss_of(u, tau=tau, center="logZ"), u)
    torch.testing.assert_close(found, -(REWARD - c) / 4, atol=2e-5, rtol=0)


def test_its_fixed_points_by_hand():
    """pi_i = (.5, .3, .2), r = (0, 1, 0), tau = .5: with the exact Z the optimum; with the mean reward near it."""
    pi, r, tau = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.0, 1, 0]).double(), 0.5
    exact = pi * (r / tau).exp()
    close(exact / exact.sum(), [0.1714, 0.76, 0.0686], 5e-5)
    for c, wanted in (
        (tau * (pi * (r / tau).exp()).sum().log(), [0.1714, 0.76, 0.0686]),
        ((pi * r).sum(), [0.2405, 0.6633, 0.0962]),
    ):
        z = pi.log().clone().requires_grad_()
        optimiser = torch.optim.Adam([z], lr=0.02)
        for _ in range(1500):
            optimiser.zero_grad()
            (pi * (r - c - tau * (z.log_softmax(0) - pi.log())).square()).sum().backward()
            optimiser.step()
        close(z.detach().softmax(0), wanted, 5e-4)


def test_at_the_reference_it_is_dr_grpo_with_a_sum_over_tokens():
    logp = -torch.rand(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.tensor([[1.0, 1, 1], [1, 0, 0], [0, 1, 1], [1, 1, 0]], dtype=torch.float64)
    leaf = logp.clone().requires_grad_()
    (found,) = torch.autograd.grad(mirror_loss(leaf, logp, mask, REWARD, ONE, tau=0.7), leaf)
    adv = group_advantage(REWARD, ONE, center="group")
    (base,) = torch.autograd.grad(agg_loss(-adv[:, None] * (leaf - logp).exp(), mask, "seq-mean-token-sum"), leaf)
    torch.testing.assert_close(found, base)
    equal = mirror_loss(leaf, logp, mask, torch.full((4,), -1.7).double(), ONE)
    assert (torch.autograd.grad(equal, leaf)[0] == 0).all()


def test_prompts_weigh_alike_whatever_their_number_of_answers():
    u = torch.tensor([0.2, -0.1, 0.3, 0, 0.4, 0.1], dtype=torch.float64)[:, None]
    reward, group = torch.tensor([1.0, 0, 0, 1, 1, 0]).double(), torch.tensor([7, 7, 7, 7, 2, 2])
    both = mirror_loss(u, 0 * u, u * 0 + 1, reward, group)
    each = [mirror_loss(u[r], 0 * u[r], u[r] * 0 + 1, reward[r], group[r]) for r in (slice(0, 4), slice(4, 6))]
    torch.testing.assert_close(both, sum(each) / 2)


def test_long_to_short():
    length = torch.tensor([9, 4, 4, 7, 3, 5, 5, 8])
    correct = torch.tensor([1.0, 1, 1, 1, 0, 0, 1, 0])
    group = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1])
    assert shortest_correct(length, correct, group).tolist() == [0, 1, 0, 0, 0, 0, 1, 0]
    assert shortest_correct(length, 0 * correct, group).sum() == 0
    # right ones of 1.5 times 4 and longer; wrong ones that are longer
    assert length_pairs(length, correct, group).tolist() == [[1, 0], [1, 3], [6, 7]]
    assert length_pairs(length, correct, group, ratio=2.0).tolist() == [[1, 0], [6, 7]]
    logp = -torch.rand(8, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mask = torch.ones(8, 2, dtype=torch.float64)
    found = length_preference(logp, 0 * logp, mask, length, correct, group, beta=0.5, ratio=2.0)
    u = 0.5 * logp.sum(1)
    wanted = sum(math.log1p(math.exp(float(u[b] - u[a]))) for a, b in ((1, 0), (6, 7))) / 2
    assert float(found) == pytest.approx(wanted)
    none = length_preference(logp.requires_grad_(), 0 * logp, mask, length, 0 * correct, group)
    assert none.item() == 0 and none.requires_grad
    merged = average_weights({"a": torch.tensor([1.0, 3.0])}, {"a": torch.tensor([3.0, 3.0])})
    assert merged["a"].tolist() == [2.0, 3.0]
    with pytest.raises(ValueError, match="same names and shapes"):
        average_weights({"a": torch.zeros(2)}, {"a": torch.zeros(3)})
