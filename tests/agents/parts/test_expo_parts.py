"""Parts of EXPO and RLPD against values worked out by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from polyathlon.agents.parts.candidates import best_candidate, with_edits
from polyathlon.agents.parts.diffusion import ddpm_loss, ddpm_step, diffuse, variance_preserving_schedule
from polyathlon.agents.parts.flow_matching import euler_step, flow_matching_loss, interpolate


def test_variances_of_ten_steps():
    schedule = variance_preserving_schedule(10)
    wanted = [0.0578, 0.1466, 0.2270, 0.2999, 0.3659, 0.4256, 0.4798, 0.5288, 0.5732, 0.6135]
    torch.testing.assert_close(schedule.beta, torch.tensor(wanted), rtol=0, atol=5e-5)
    assert float(schedule.alpha_hat[-1]) == pytest.approx(0.00641, abs=5e-6)
    torch.testing.assert_close(schedule.alpha + schedule.beta, torch.ones(10))


def test_a_diffused_action_keeps_its_share():
    # alpha_hat = 0.64: 0.8 * 0.5 + 0.6 * 1 = 1.0 in the first row; the second one is left alone
    x = diffuse(torch.tensor([[0.5], [0.3]]), torch.tensor([[1.0], [9.0]]), torch.tensor([0.64, 1.0]))
    torch.testing.assert_close(x, torch.tensor([[1.0], [0.3]]))


def test_diffusion_loss_sums_components_and_averages_rows():
    predicted, noise = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    assert float(ddpm_loss(predicted, noise)) == pytest.approx((1 + 4 + 1) / 2)


def test_the_last_denoising_step_with_the_true_noise_gives_the_action_back():
    schedule = variance_preserving_schedule(5)
    action, noise = torch.tensor([[0.4, -0.7]]), torch.tensor([[0.3, -1.1]])
    x = diffuse(action, noise, schedule.alpha_hat[0])
    torch.testing.assert_close(ddpm_step(x, noise, schedule, 0, None), action)
    # noise is ignored in the last step
    torch.testing.assert_close(ddpm_step(x, noise, schedule, 0, noise), action)


def test_a_denoising_step_adds_noise_and_clips():
    schedule = variance_preserving_schedule(10)
    beta, alpha, left = (float(column[3]) for column in schedule)
    wanted = (0.2 - beta / math.sqrt(1 - left) * 0.5) / math.sqrt(alpha) + math.sqrt(beta) * 0.1
    x = ddpm_step(torch.tensor([0.2]), torch.tensor([0.5]), schedule, 3, torch.tensor([0.1]))
    assert float(x) == pytest.approx(wanted, abs=1e-6)
    assert float(ddpm_step(torch.tensor([9.0]), torch.tensor([0.0]), schedule, 3, None)) == 1.0


def test_exact_noise_predictions_sample_a_point_mass():
    """Ancestral sampling with the exact noise of data that all lie at 0.3 must end there."""
    schedule = variance_preserving_schedule(10)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 1, generator=generator)
    for t in range(9, -1, -1):
        left = schedule.alpha_hat[t]
        exact = (x - left.sqrt() * 0.3) / (1 - left).sqrt()
        x = ddpm_step(x, exact, schedule, t, torch.randn(64, 1, generator=generator))
    torch.testing.assert_close(x, torch.full((64, 1), 0.3), rtol=0, atol=1e-5)


def test_flow_matching_path_and_loss():
    noise, action = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.0, 0.5]])
    torch.testing.assert_close(interpolate(noise, action, torch.tensor([0.25])), torch.tensor([[0.75, -0.625]]))
    # the true velocity is (-1, 1.5); an answer of (0, 1) misses it by 1 and 0.5
    assert float(flow_matching_loss(torch.tensor([[0.0, 1.0]]), noise, action)) == pytest.approx(1.25)
    x = noise
    for _ in range(4):
        x = euler_step(x, action - noise, 4)
    torch.testing.assert_close(x, action)


def test_the_best_of_base_samples_and_edits_is_taken():
    base, edits = torch.tensor([[[-0.4], [0.2]]]), 0.1 * torch.tensor([[[0.8], [0.9]]])
    candidates = with_edits(base, edits)
    torch.testing.assert_close(candidates[0, :, 0], torch.tensor([-0.4, 0.2, -0.32, 0.29]))
    q = -(candidates[..., 0] - 0.5).square()
    assert float(best_candidate(candidates, q[None])) == pytest.approx(0.29)
    # a second critic that dislikes that one has its way: the smallest value counts
    other = torch.tensor([[0.0, 0.0, 0.0, -9.0]])
    assert float(best_candidate(candidates, torch.stack([q, other]))) == pytest.approx(0.2)


def test_edits_stay_in_the_box_and_none_leaves_the_base_samples():
    base = torch.tensor([[[0.95], [-0.2]]])
    assert float(with_edits(base, torch.tensor([[[0.3]]]))[0, 2]) == 1.0
    assert torch.equal(with_edits(base, base.new_zeros(1, 0, 1)), base)


def test_more_candidates_are_never_worth_less():
    generator = torch.Generator().manual_seed(0)
    candidates = torch.rand(32, 6, 2, generator=generator) * 2 - 1
    q = candidates.sum(-1)
    values = [best_candidate(candidates[:, :n], q[None, :, :n]).sum(-1) for n in range(1, 7)]
    assert all(bool((b >= a).all()) for a, b in itertools.pairwise(values))
