"""Parts of offline methods against values worked by hand."""

from __future__ import annotations

import pytest
import torch

from polyathlon.agents.parts.offline_losses import (
    advantage_weight,
    expectile_loss,
    expectile_weight,
    q_scale,
    smooth_target_action,
    weighted_imitation,
)


def test_expectile_by_hand():
    gap = torch.tensor([-1.0, 2.0])
    torch.testing.assert_close(expectile_weight(gap, 0.7), torch.tensor([0.3, 0.7]))
    assert float(expectile_loss(gap, 0.7)) == pytest.approx(1.55)


@pytest.mark.parametrize("tau", [0.5, 0.7, 0.9])
def test_the_expectile_of_two_equal_outcomes_is_tau(tau):
    outcomes = torch.tensor([0.0, 1.0])
    value = torch.zeros((), requires_grad=True)
    optimiser = torch.optim.SGD([value], lr=0.5)
    for _ in range(200):
        optimiser.zero_grad()
        expectile_loss(outcomes - value, tau).backward()
        optimiser.step()
    assert float(value.detach()) == pytest.approx(tau, abs=1e-4)


def test_weights_by_hand():
    advantage = torch.tensor([0.5, 10.0])
    torch.testing.assert_close(advantage_weight(advantage, 3.0), torch.tensor([4.48169, 100.0]))
    torch.testing.assert_close(advantage_weight(advantage, 1.0)[0], torch.tensor(1.64872))
    assert advantage_weight(advantage, 0.0).tolist() == [1.0, 1.0]


def test_weighted_imitation_by_hand():
    logp = torch.tensor([-1.0, -3.0], requires_grad=True)
    weight = torch.tensor([2.0, 0.5], requires_grad=True)
    loss = weighted_imitation(logp, weight)
    loss.backward()
    assert float(loss.detach()) == 1.75 and weight.grad is None
    assert logp.grad.tolist() == [-1.0, -0.25]
    assert float(weighted_imitation(logp.detach())) == 2.0


def test_target_actions_by_hand():
    action, noise = torch.tensor([[0.9], [0.0], [0.0]]), torch.tensor([[1.0], [-10.0], [1.0]])
    smooth = smooth_target_action(action, noise, 0.2, 0.5)
    torch.testing.assert_close(smooth, torch.tensor([[1.0], [-0.5], [0.2]]))


def test_the_scale_of_values_by_hand():
    q = torch.tensor([2.0, -3.0], requires_grad=True)
    scale = q_scale(q, 2.5)
    assert float(scale) == 1.0 and not scale.requires_grad
