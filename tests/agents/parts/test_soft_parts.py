"""Parts of soft actor-critic against values worked out by hand."""

from __future__ import annotations

import pytest
import torch

from polyathlon.agents.parts.replay import Replay
from polyathlon.agents.parts.squashed_gaussian import log_one_minus_tanh_squared, tanh_gaussian
from polyathlon.agents.parts.targets import temperature_loss
from polyathlon.envs.errors import UsageError


def test_log_density_of_a_squashed_sample():
    # u = 0.5 of a standard normal: log N(0.5) - log(1 - tanh(0.5)^2) = -1.04394 + 0.24022
    action, logp = tanh_gaussian(torch.zeros(1), torch.zeros(1), torch.tensor([0.5]))
    assert float(logp) == pytest.approx(-0.80371, abs=1e-5)
    assert float(action) == pytest.approx(0.46212, abs=1e-5)


def test_log_density_stays_finite_far_out():
    assert float(log_one_minus_tanh_squared(torch.tensor(50.0))) == pytest.approx(2 * (0.6931472 - 50), rel=1e-6)
    assert float(log_one_minus_tanh_squared(torch.tensor(-50.0))) == pytest.approx(2 * (0.6931472 - 50), rel=1e-6)


def test_temperature_rises_where_entropy_is_short():
    log_alpha = torch.zeros(1, requires_grad=True)
    temperature_loss(log_alpha, torch.tensor([-0.5]), -1.0).backward()
    assert float(log_alpha.grad) == pytest.approx(1.5)


def fill(replay, start, number):
    value = torch.arange(start, start + number, dtype=torch.float32)
    replay.add(value[:, None].repeat(1, 2), value[:, None], value[:, None].repeat(1, 2) + 1, value * 10, value % 2 == 0)


def test_replay_keeps_the_newest_and_its_columns():
    replay = Replay(5, 2, 1, torch.device("cpu"))
    fill(replay, 0, 3)
    assert (replay.size, replay.position) == (3, 3)
    fill(replay, 3, 4)  # wraps: 5 and 6 overwrite 0 and 1
    assert (replay.size, replay.position) == (5, 2)
    held = replay.split(replay.rows)
    assert sorted(held.action[:, 0].tolist()) == [2, 3, 4, 5, 6]
    assert torch.equal(held.reward, held.action[:, 0] * 10)
    assert torch.equal(held.next_obs, held.obs + 1)
    assert torch.equal(held.done, (held.action[:, 0] % 2 == 0).float())
    assert torch.equal(held.obs_action, torch.cat([held.obs, held.action], 1))


def test_replay_samples_what_it_holds_and_follows_its_generator():
    replay = Replay(100, 2, 1, torch.device("cpu"))
    fill(replay, 0, 10)
    first = replay.sample(500, torch.Generator().manual_seed(3)).action.clone()
    assert set(first.flatten().tolist()) == set(range(10))
    assert torch.equal(first, replay.sample(500, torch.Generator().manual_seed(3)).action)


def test_replay_state_comes_back_and_a_wrong_one_is_refused():
    replay = Replay(5, 2, 1, torch.device("cpu"))
    fill(replay, 0, 7)
    again = Replay(5, 2, 1, torch.device("cpu"))
    again.set_state(replay.get_state())
    assert torch.equal(again.rows, replay.rows) and again.position == replay.position
    with pytest.raises(UsageError, match="cannot take"):
        Replay(3, 2, 1, torch.device("cpu")).set_state(replay.get_state())
    with pytest.raises(UsageError, match="positive"):
        Replay(0, 2, 1, torch.device("cpu"))
