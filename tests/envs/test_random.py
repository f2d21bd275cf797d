"""The counter-based generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from polyathlon.envs import random


def keys_of(count, seed=0):
    rows = torch.arange(count)
    return random.make_keys(rows + seed, torch.zeros_like(rows))


def test_draws_depend_on_key_step_stream_and_position_only():
    keys = keys_of(1000)
    whole = random.uniform(keys, 5, (3, 2), stream=2)
    assert torch.equal(whole[17:18], random.uniform(keys[17:18], 5, (3, 2), stream=2))
    steps = torch.full((1000,), 5)
    assert torch.equal(whole, random.uniform(keys, steps, (3, 2), stream=2))
    for other in (random.uniform(keys, 6, (3, 2), stream=2), random.uniform(keys, 5, (3, 2), stream=3)):
        assert (whole == other).float().mean() < 0.01


def test_keys_of_different_seeds_and_episodes_differ():
    seeds, episodes = torch.meshgrid(torch.arange(300), torch.arange(300), indexing="ij")
    keys = random.make_keys(seeds.reshape(-1), episodes.reshape(-1))
    assert len(np.unique(keys.numpy(), axis=0)) == 90_000


def test_keys_of_few_rows_are_those_of_many():
    seeds = torch.cat((torch.arange(40), torch.tensor([2**62 - 1, -(2**63), 2**63 - 1, -5]), torch.arange(40)))
    episodes = torch.arange(84) ** 7
    whole = random.make_keys(seeds, episodes)
    parts = [
        random.make_keys(seeds[i : i + size], episodes[i : i + size]) for size in (1, 3, 4) for i in range(0, 84, size)
    ]
    assert torch.equal(torch.cat(parts), whole.repeat(3, 1))
    assert random.make_keys(seeds[:0], episodes[:0]).shape == (0, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_and_normal_have_their_distributions(dtype):
    keys = keys_of(5000)
    uniform = random.uniform(keys, 1, (4,), dtype)
    assert uniform.dtype == dtype and uniform.min() >= 0 and uniform.max() < 1
    for column in uniform.T:
        assert stats.kstest(column.numpy().astype(np.float64), "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(uniform.numpy().T) - np.eye(4)).max() < 0.06
    normal = random.normal(keys, 2, (2,), dtype).reshape(-1).numpy().astype(np.float64)
    assert stats.kstest(normal, "norm").pvalue > 1e-3


def test_consecutive_steps_and_episodes_are_uncorrelated():
    keys = keys_of(4000)
    later = random.make_keys(torch.arange(4000), torch.ones(4000, dtype=torch.int64))
    draws = torch.stack([random.uniform(keys, 0), random.uniform(keys, 1), random.uniform(later, 0)])
    assert np.abs(np.corrcoef(draws.numpy()) - np.eye(3)).max() < 0.06


def test_integers_fill_their_range_evenly():
    numbers = random.integers(keys_of(7000), 0, -2, 5)
    counts = np.bincount(numbers.numpy() + 2, minlength=7)
    assert numbers.min() == -2 and numbers.max() == 4
    assert stats.chisquare(counts).pvalue > 1e-3
    with pytest.raises(ValueError, match=r"low=3, high=3"):
        random.integers(keys_of(1), 0, 3, 3)


def test_choice_takes_allowed_entries_evenly():
    mask = torch.tensor([[True, False, True, True, False]]).expand(6000, -1)
    counts = np.bincount(random.choice(keys_of(6000), 0, mask).numpy(), minlength=5)
    assert counts[1] == counts[4] == 0
    assert stats.chisquare(counts[[0, 2, 3]]).pvalue > 1e-3


def test_compiled_draws_are_equal_bit_for_bit():
    keys = keys_of(64)
    compiled = torch.compile(lambda k: random.uniform(k, 3, (2,), torch.float64), fullgraph=True)
    assert torch.equal(compiled(keys), random.uniform(keys, 3, (2,), torch.float64))
