"""Adam on a flat vector: clipping by the norm, and equality with torch's own Adam."""

from __future__ import annotations

import pytest
import torch

from polyathlon.agents.parts.flat_adam import FlatAdam


def made(values):
    parameter = torch.nn.Parameter(torch.tensor(values))
    return parameter, FlatAdam([parameter], lr=0.1)


@pytest.mark.parametrize(
    ("gradient", "bound", "factor"),
    [
        ([3.0, 4.0], 10.0, 1.0),  # shorter than the bound: left alone, not scaled up to it
        ([3.0, 4.0], 1.0, 0.2),
        ([3.0, 4.0], None, 1.0),
    ],
)
def test_a_long_gradient_is_scaled_down_and_a_short_one_left_alone(gradient, bound, factor):
    _, adam = made([1.0, -1.0])
    adam.gradient.copy_(torch.tensor(gradient))
    adam.clipped_step(0.1, bound)
    # the first moment after one step is (1 - beta1) g, the second (1 - beta2) g^2
    state = adam.state[adam.vector]
    torch.testing.assert_close(state["exp_avg"], 0.1 * factor * torch.tensor(gradient))
    torch.testing.assert_close(state["exp_avg_sq"], 0.001 * (factor * torch.tensor(gradient)).square())


def test_steps_equal_torchs_adam_after_its_own_clipping():
    generator = torch.Generator().manual_seed(0)
    mine, adam = made([0.5, -0.2, 1.0])
    theirs = torch.nn.Parameter(torch.tensor([0.5, -0.2, 1.0]))
    reference = torch.optim.Adam([theirs], lr=0.05)
    for scale in (0.01, 5.0, 0.3, 2.0):
        gradient = scale * torch.randn(3, generator=generator)
        adam.gradient.copy_(gradient)
        adam.clipped_step(0.05, 0.5)
        theirs.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_([theirs], 0.5)
        reference.step()
        torch.testing.assert_close(mine.data, theirs.data, rtol=1e-5, atol=1e-6)


def test_gradients_of_all_parameters_lie_in_one_vector_and_a_plain_step_takes_them_unclipped():
    first, second = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(1))
    adam = FlatAdam([first, second], lr=0.5)
    assert adam.vector.grad is adam.gradient
    (100 * first.sum() + second.sum()).backward()
    assert adam.gradient.tolist() == [100, 100, 1]
    adam.step()
    # the first step of Adam is lr in each direction, whatever the gradient's size
    torch.testing.assert_close(torch.cat([first, second]).detach(), torch.full((3,), 0.5))
    adam.zero_grad()
    assert adam.gradient.tolist() == [0, 0, 0]
