"""Parts of mixtures of experts against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import grad

from polyathlon.agents.parts.action_distributions import gaussian_log_prob
from polyathlon.agents.parts.expert_routing import (
    frequency_loss,
    gumbel_noise,
    picks,
    relaxed_choice,
    score_ratio_loss,
)
from polyathlon.agents.parts.gaussian_mixture import gmm_logp, of_expert, tanh_gmm_logp
from polyathlon.agents.parts.squashed_gaussian import tanh_gaussian


def test_frequency_loss_of_two_experts():
    # w = (0.7, 0.3) and the second is best: ((0.7 - 0)^2 + (0.3 - 1)^2) / 2
    logits = torch.tensor([[0.7, 0.3]]).log().requires_grad_()
    w = logits.softmax(-1)
    loss = frequency_loss(w, torch.tensor([[1.0, 2.0]]))
    assert float(loss.detach()) == pytest.approx(0.49)
    assert grad(loss, w, retain_graph=True)[0].tolist()[0] == pytest.approx([0.7, -0.7])
    assert grad(loss, logits)[0].tolist()[0] == pytest.approx([0.294, -0.294])


def test_frequency_loss_is_still_where_the_weights_are_the_frequencies():
    # the first expert is best in 3 of 4 rows
    q = torch.tensor([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [1.0, 2.0]])
    assert picks(q.argmax(1), 2).tolist() == [[1, 0], [1, 0], [1, 0], [0, 1]]
    right, wrong = (torch.tensor([[p, 1 - p]]).log().repeat(4, 1).requires_grad_() for p in (0.75, 0.6))
    found = [grad(frequency_loss(logits.softmax(-1), q), logits)[0].sum(0) for logits in (right, wrong)]
    assert found[0].abs().max() < 1e-7
    assert found[1][0] < 0  # a step against it raises the first weight


def test_frequency_loss_sends_no_gradient_to_the_values():
    logits, q = torch.zeros(3, 2, requires_grad=True), torch.randn(3, 2, requires_grad=True)
    frequency_loss(logits.softmax(-1), q).backward()
    assert q.grad is None and logits.grad.abs().sum() > 0


def test_a_single_expert_has_nothing_to_learn_about_routing():
    assert float(frequency_loss(torch.ones(3, 1), torch.randn(3, 1))) == 0


def test_score_ratio_of_a_drawn_expert():
    # -2 log 0.7 and its derivative 2 (w - (1, 0)) by the logits
    logits = torch.tensor([[0.7, 0.3]]).log().requires_grad_()
    loss = score_ratio_loss(logits.log_softmax(-1), torch.tensor([0]), torch.tensor([2.0]))
    assert float(loss.detach()) == pytest.approx(-2 * math.log(0.7))
    assert grad(loss, logits)[0].tolist()[0] == pytest.approx([-0.6, 0.6])


def test_mixture_density():
    log_w = torch.tensor([[0.7, 0.3]]).log()
    mean, log_std = torch.tensor([[[-1.0], [1.0]]]), torch.full((2, 1), math.log(0.5))
    assert float(gmm_logp(log_w, mean, log_std, torch.tensor([[0.2]]))) == pytest.approx(-2.32376, abs=1e-5)


def test_mixture_density_far_from_every_expert_stays_finite():
    log_w, mean = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[[-1.0], [1.0]]])
    # the nearer one alone counts: log 0.5 - 99^2 / 2 - log sqrt(2 pi)
    assert float(gmm_logp(log_w, mean, torch.zeros(2, 1), torch.tensor([[100.0]]))) == pytest.approx(
        math.log(0.5) - 99**2 / 2 - 0.918939, rel=1e-6
    )


def test_mixture_of_one_is_a_gaussian():
    mean, log_std, noise = torch.randn(3, 5, 2).unbind(0)
    log_w = torch.zeros(5, 1)
    action = mean + log_std.exp() * noise
    torch.testing.assert_close(
        gmm_logp(log_w, mean[:, None], log_std[:, None], action), gaussian_log_prob(mean, log_std, action)
    )
    torch.testing.assert_close(
        tanh_gmm_logp(log_w, mean[:, None], log_std[:, None], action), tanh_gaussian(mean, log_std, noise)[1]
    )


def test_what_belongs_to_one_expert_of_each_row():
    mean = torch.arange(4.0).reshape(1, 2, 2)
    assert of_expert(mean, torch.tensor([1])).tolist() == [[2.0, 3.0]]


def test_relaxed_choice_becomes_a_draw_by_the_weights():
    generator = torch.Generator().manual_seed(0)
    log_w = torch.tensor([0.7, 0.3]).log().repeat(20_000, 1)
    choice = relaxed_choice(log_w, gumbel_noise(log_w, generator), 0.01)
    assert choice.sum(1).allclose(torch.ones(20_000)) and float(choice.max(1).values.mean()) > 0.98
    assert float(choice[:, 0].mean()) == pytest.approx(0.7, abs=0.01)
    # equal logits and temperature 2: softmax((1, 0) / 2)
    assert relaxed_choice(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), 2.0)[0, 0] == pytest.approx(0.62246, abs=1e-5)
