"""Noise on actions: SB3's formulas with numbers of our own generator, shapes, ends of episodes, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.noise import (
    ActionNoise,
    NormalActionNoise,
    OrnsteinUhlenbeckActionNoise,
    VectorizedActionNoise,
)

from polyathlon.agents.parts.action_noise import RowNoise, noise_words
from polyathlon.envs.errors import UsageError

SPACE = spaces.Box(-1, 1, (2,))
CPU = torch.device("cpu")


def made(noise, n_envs=1):
    return RowNoise(CPU, **noise_words(noise, SPACE, n_envs))


def seeded():
    return torch.Generator().manual_seed(3)


def test_normal_noise_has_its_mean_and_deviation():
    noise = made(NormalActionNoise(np.array([0.5, -1.0]), np.array([0.1, 2.0])))
    drawn = noise.draw(20_000, seeded())
    torch.testing.assert_close(drawn.mean(0), torch.tensor([0.5, -1.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.std(0), torch.tensor([0.1, 2.0]), atol=0, rtol=0.03)
    assert torch.equal(drawn, noise.draw(20_000, seeded()))


def test_a_walk_is_sb3_s_where_both_draw_the_same_numbers(monkeypatch):
    theirs = OrnsteinUhlenbeckActionNoise(
        np.array([0.3, -0.2]), np.array([0.4, 0.6]), theta=0.5, dt=0.04, initial_noise=np.array([1.0, -2.0])
    )
    ours, eps = made(theirs), torch.randn(6, 1, 2, generator=seeded())
    numbers = iter(eps[:, 0].double().numpy())
    monkeypatch.setattr(np.random, "normal", lambda size: next(numbers))
    generator = seeded()
    for step in range(6):
        np.testing.assert_allclose(ours.draw(1, generator)[0].numpy(), theirs(), rtol=2e-6)
        if step == 3:
            theirs.reset()
            ours.reset(torch.tensor([True]))


def test_each_environment_walks_alone_and_begins_anew_at_its_own_end():
    walk = OrnsteinUhlenbeckActionNoise(np.ones(2), np.zeros(2), theta=1.0, dt=0.1)
    noise = made(walk, 2)
    for _ in range(2):
        found = noise.draw(2, seeded())
    torch.testing.assert_close(found, torch.full((2, 2), 0.19))
    noise.reset(torch.tensor([False, True]))
    torch.testing.assert_close(noise.draw(2, seeded()), torch.tensor([[0.271] * 2, [0.1] * 2]))
    state = noise.state_dict()
    again = made(walk, 2)
    again.load_state_dict(state)
    assert torch.equal(again.draw(2, seeded()), noise.draw(2, seeded()))


def test_environments_may_have_noises_of_their_own():
    rows = VectorizedActionNoise(NormalActionNoise(np.zeros(2), np.zeros(2)), 2)
    rows.noises = [NormalActionNoise(np.full(2, mean), np.zeros(2)) for mean in (0.25, -0.5)]
    assert made(rows, 2).draw(2, seeded()).tolist() == [[0.25, 0.25], [-0.5, -0.5]]


class Mine(ActionNoise):
    def __call__(self):
        return np.zeros(2)


@pytest.mark.parametrize(
    ("noise", "n_envs", "message"),
    [
        (NormalActionNoise(np.zeros(3), np.ones(3)), 1, r"shape \(3,\), an action \(2,\): give NormalActionNoise"),
        (NormalActionNoise(0.0, 0.1), 1, r"shape \(\), an action"),
        (NormalActionNoise(np.zeros(2), -np.ones(2)), 1, "sigma of action_noise must be finite and not negative"),
        (NormalActionNoise(np.array([np.nan, 0]), np.ones(2)), 1, "mean of action_noise must be finite"),
        (
            OrnsteinUhlenbeckActionNoise(np.zeros(2), np.ones(2), initial_noise=np.zeros(3)),
            1,
            r"initial of action_noise has the shape \(3,\)",
        ),
        (
            VectorizedActionNoise(NormalActionNoise(np.zeros(2), np.ones(2)), 3),
            2,
            "for 3 environments, the agent has 2",
        ),
        (Mine(), 1, "action_noise= takes NormalActionNoise, .*got Mine: the numbers are drawn from the agent's own"),
        (0.1, 1, "got float"),
    ],
)
def test_other_noise_is_refused(noise, n_envs, message):
    with pytest.raises(UsageError, match=message):
        noise_words(noise, SPACE, n_envs)
