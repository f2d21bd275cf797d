"""Returns over time against numbers worked out by hand, and against the definition."""

from __future__ import annotations

import pytest
import torch

from polyathlon.agents.parts.time_returns import discounted_sums, gae_time


def column(*numbers):
    return torch.tensor(numbers).unsqueeze(1)


def flags(*values):
    return torch.tensor(values).bool().unsqueeze(1)


def test_gae_of_a_terminated_episode_by_hand():
    # r = (1, 0, 1), V = (.5, .4, .3), g = .9, lam = .8
    advantage, returns = gae_time(
        column(1.0, 0.0, 1.0), column(0.5, 0.4, 0.3), column(0.4, 0.3, 9.0), flags(0, 0, 1), flags(0, 0, 1), 0.9, 0.8
    )
    torch.testing.assert_close(advantage, column(1.12928, 0.374, 0.7))
    torch.testing.assert_close(returns, column(1.62928, 0.774, 1.0))


def test_a_truncated_step_keeps_the_value_of_its_final_observation():
    advantage, _ = gae_time(column(1.0, 1.0), column(0.5, 0.25), column(2.0, 0.0), flags(0, 1), flags(1, 1), 0.5, 1.0)
    # the first episode was cut: 1 + .5 * 2 - .5, and nothing of the second flows back
    torch.testing.assert_close(advantage, column(1.5, 0.75))


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_gae_equals_its_definition_on_random_rollouts(lam):
    generator = torch.Generator().manual_seed(0)
    steps, rows, gamma = 12, 5, 0.9
    reward, value, following = (torch.randn(steps, rows, generator=generator) for _ in range(3))
    terminated = torch.rand(steps, rows, generator=generator) < 0.2
    done = terminated | (torch.rand(steps, rows, generator=generator) < 0.2)
    advantage, returns = gae_time(reward, value, following, terminated, done, gamma, lam)
    delta = reward + gamma * following * ~terminated - value
    for row in range(rows):
        for start in range(steps):
            total, weight = 0.0, 1.0
            for t in range(start, steps):
                total += weight * delta[t, row].item()
                if done[t, row]:
                    break
                weight *= gamma * lam
            assert advantage[start, row].item() == pytest.approx(total, abs=1e-5)
    torch.testing.assert_close(returns, advantage + value)


def test_each_objective_has_its_own_advantage():
    reward, value, following = (torch.randn(4, 2, 3) for _ in range(3))
    terminated, done = torch.zeros(4, 2, dtype=torch.bool), torch.zeros(4, 2, dtype=torch.bool)
    together, _ = gae_time(reward, value, following, terminated, done, 0.9, 0.5)
    for k in range(3):
        alone, _ = gae_time(reward[..., k], value[..., k], following[..., k], terminated, done, 0.9, 0.5)
        torch.testing.assert_close(together[..., k], alone)


def test_discounted_sums_start_again_with_each_episode_and_go_on_over_rollouts():
    reward, done = column(1.0, 1.0, 1.0, 1.0), flags(0, 1, 0, 0)
    sums, carried = discounted_sums(reward, done, torch.tensor([2.0]), 0.5)
    torch.testing.assert_close(sums, column(3.0, 2.5, 1.0, 1.5))
    torch.testing.assert_close(carried, torch.tensor([0.75]))
    first, middle = discounted_sums(reward[:2], done[:2], torch.tensor([2.0]), 0.5)
    second, _ = discounted_sums(reward[2:], done[2:], middle, 0.5)
    torch.testing.assert_close(torch.cat([first, second]), sums)


def test_objectives_are_summed_and_estimated_each_by_itself():
    generator = torch.Generator().manual_seed(5)
    reward, value, following = (torch.randn(6, 2, 3, generator=generator) for _ in range(3))
    terminated = torch.rand(6, 2, generator=generator) < 0.3
    done = terminated | (torch.rand(6, 2, generator=generator) < 0.2)
    start = torch.randn(2, 3, generator=generator)
    sums, carried = discounted_sums(reward, done, start, 0.9)
    advantage, returns = gae_time(reward, value, following, terminated, done, 0.9, 0.8)
    for k in range(3):
        own_sums, own_carried = discounted_sums(reward[..., k], done, start[:, k], 0.9)
        torch.testing.assert_close(sums[..., k], own_sums)
        torch.testing.assert_close(carried[:, k], own_carried)
        own = gae_time(reward[..., k], value[..., k], following[..., k], terminated, done, 0.9, 0.8)
        torch.testing.assert_close(advantage[..., k], own[0])
        torch.testing.assert_close(returns[..., k], own[1])
