"""Action distributions against torch's own and against closed forms."""

from __future__ import annotations

import math

import numpy as np
import torch
from gymnasium import spaces
from torch.distributions import Categorical, Independent, Normal

from polyathlon.agents.parts.action_distributions import (
    categorical_entropy,
    categorical_log_prob,
    choices_of,
    coded,
    gaussian_entropy,
    gaussian_log_prob,
    masked_log_softmax,
    sample_categorical,
)


def test_the_gaussian_equals_torchs():
    mean, log_std, action = torch.randn(7, 3), torch.randn(3), torch.randn(7, 3)
    reference = Independent(Normal(mean, log_std.exp()), 1)
    torch.testing.assert_close(gaussian_log_prob(mean, log_std, action), reference.log_prob(action))
    torch.testing.assert_close(gaussian_entropy(log_std).expand(7), reference.entropy())


def test_the_categorical_equals_torchs():
    logits, action = torch.randn(7, 4), torch.tensor([0, 1, 2, 3, 0, 1, 2])
    log_probs, reference = masked_log_softmax(logits, None), Categorical(logits=logits)
    torch.testing.assert_close(categorical_log_prob(log_probs, action), reference.log_prob(action))
    torch.testing.assert_close(categorical_entropy(log_probs), reference.entropy())


def test_forbidden_actions_have_no_probability_and_no_entropy():
    mask = torch.tensor([[True, False, True], [False, True, False]])
    log_probs = masked_log_softmax(torch.zeros(2, 3), mask)
    torch.testing.assert_close(log_probs.exp(), torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]]))
    torch.testing.assert_close(categorical_entropy(log_probs), torch.tensor([math.log(2), 0.0]))
    drawn = sample_categorical(log_probs.expand(500, 2, 3), torch.Generator().manual_seed(0))
    assert (drawn[:, 0] != 1).all() and (drawn[:, 1] == 1).all()


def test_draws_follow_the_probabilities_and_the_generator():
    log_probs = torch.tensor([0.1, 0.2, 0.7]).log().expand(20_000, 3)
    drawn = sample_categorical(log_probs, torch.Generator().manual_seed(1))
    frequency = torch.bincount(drawn, minlength=3) / 20_000
    torch.testing.assert_close(frequency, torch.tensor([0.1, 0.2, 0.7]), atol=0.015, rtol=0)
    assert torch.equal(drawn, sample_categorical(log_probs, torch.Generator().manual_seed(1)))

    several = masked_log_softmax(torch.randn(2, 3, 4), None)  # over the last dimension, whatever stands before it
    torch.testing.assert_close(several.exp().sum(-1), torch.ones(2, 3))


def test_the_choices_of_each_space():
    assert choices_of(spaces.MultiDiscrete([3, 2])) == [3, 2] and choices_of(spaces.MultiBinary((2, 3))) == [2] * 6
    assert choices_of(spaces.Box(-1, 1, (2,))) == []


def test_actions_of_each_space_are_counted_from_0_or_left_as_they_are():
    assert coded(torch.tensor([[4], [6]]), spaces.Discrete(3, start=4)).tolist() == [0, 2]
    pairs = spaces.MultiDiscrete([3, 2], start=np.array([1, -1]))
    assert coded(torch.tensor([[1, -1], [3, 0]]), pairs).tolist() == [[0, 0], [2, 1]]
    bits = coded(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]), spaces.MultiBinary((1, 2)))
    assert bits.tolist() == [[1, 0], [0, 1]] and bits.dtype is torch.int64
    point = coded(torch.full((2, 1, 3), 0.5), spaces.Box(-1, 1, (1, 3)))
    assert point.shape == (2, 3) and point.dtype is torch.float32 and (point == 0.5).all()
