"""Numbers that depend on a row alone: even, unrelated, repeatable."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from polyathlon.agents.parts.row_noise import row_uniforms


def splitmix64(state: int) -> int:
    """Return the scrambled number, in Python's integers."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


def test_the_numbers_are_splitmix64_of_the_row():
    golden = 0x9E3779B97F4A7C15
    assert splitmix64(golden) == 0xE220A8397B1DCDAF  # the first number of Vigna's splitmix64.c from the state 0
    row = np.array([1.5, -2.0], np.float32)
    bits = [int(x) % 2**64 for x in row.view(np.int32)]
    key = splitmix64(sum(splitmix64(b ^ splitmix64((i + 1) * golden % 2**64)) for i, b in enumerate(bits)) % 2**64)
    wanted = [((splitmix64((key + (k + 1) * golden) % 2**64) >> 32) + 0.5) / 2**32 for k in range(5)]
    assert row_uniforms(torch.from_numpy(row)[None], 5)[0].tolist() == wanted


def test_neighbouring_rows_get_even_and_unrelated_numbers():
    rows = torch.stack([torch.arange(4000) * 1e-3, torch.ones(4000)], 1)
    found = row_uniforms(rows, 6).numpy()
    assert found.min() > 0 and found.max() < 1
    for column in found.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    related = np.corrcoef(np.concatenate([found[1:], found[:-1]], 1).T) - np.eye(12)
    assert np.abs(related).max() < 0.06  # four standard errors


def test_rows_are_told_apart_by_place_and_not_by_the_sign_of_zero():
    rows = torch.tensor([[1.0, 2.0], [2.0, 1.0], [0.0, 1.0], [-0.0, 1.0], [1.0, 2.0]])
    first = row_uniforms(rows, 3)
    assert torch.equal(first[0], first[4]) and torch.equal(first[2], first[3]) and not torch.equal(first[0], first[1])
    assert torch.equal(row_uniforms(rows[1:2], 7)[:, :3], first[1:2])
