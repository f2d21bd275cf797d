"""Running moments equal the moments of everything seen."""

from __future__ import annotations

import torch

from polyathlon.agents.parts.moments import RunningMoments


def test_moments_of_parts_equal_those_of_the_whole():
    samples = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)).double() * 5 + 2
    moments = RunningMoments((3,))
    for part in samples.split([1, 30, 69]):
        moments.update(part)
    torch.testing.assert_close(moments.mean, samples.mean(0))
    torch.testing.assert_close(moments.var, samples.var(0, correction=0))


def test_values_pass_unchanged_before_the_first_update_and_are_clipped_after():
    moments = RunningMoments((1,), clip=3.0)
    torch.testing.assert_close(moments(torch.tensor([[2.0]])), torch.tensor([[2.0]]))
    moments.update(torch.tensor([[1.0], [3.0]]))
    torch.testing.assert_close(moments(torch.tensor([[2.5], [99.0]])), torch.tensor([[0.5], [3.0]]))
    torch.testing.assert_close(moments.scale_only(torch.tensor([[0.5]])), torch.tensor([[0.5]]))


def test_loading_a_state_changes_what_is_returned():
    moments, other = RunningMoments((1,)), RunningMoments((1,))
    other.update(torch.tensor([[4.0], [6.0]]))
    moments(torch.zeros(1, 1))
    moments.load_state_dict(other.state_dict())
    torch.testing.assert_close(moments(torch.tensor([[6.0]])), torch.tensor([[1.0]]))


def test_rewards_are_divided_without_their_mean_and_clipped_on_both_sides():
    moments = RunningMoments((), clip=2.0)
    moments.update(torch.tensor([4.0, 6.0, 4.0, 6.0]))  # mean 5, deviation 1
    found = moments.scale_only(torch.tensor([1.5, -1.5, 7.0, -7.0]))
    torch.testing.assert_close(found, torch.tensor([1.5, -1.5, 2.0, -2.0]))


def test_values_are_centred_and_divided_by_the_deviation():
    moments = RunningMoments((), clip=10.0)
    moments.update(torch.tensor([1.0, 9.0]))  # mean 5, deviation 4
    torch.testing.assert_close(moments(torch.tensor([5.0, 13.0, -3.0])), torch.tensor([0.0, 2.0, -2.0]))


def test_nothing_seen_changes_nothing():
    moments = RunningMoments((2,))
    moments.update(torch.zeros(0, 2))  # the mean of nothing is NaN, and stayed in all that came after
    moments.update(torch.tensor([[4.0, 1.0], [6.0, 3.0]]))
    moments.update(torch.zeros(0, 2))
    torch.testing.assert_close(moments.mean, torch.tensor([5.0, 2.0], dtype=torch.float64))
