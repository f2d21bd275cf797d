"""Returns of several steps: worked out by hand, against a plain walk through the episodes, and against SB3's buffer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer

from polyathlon.agents.parts.n_step_returns import NStepReturns
from polyathlon.agents.parts.replay import Replay

CPU = torch.device("cpu")


def add(replay, rewards, done, ended):
    """One step of every environment; observation and action are the number of the transition, the next one that and a half."""
    value = replay.added + torch.arange(len(rewards), dtype=torch.float32)[:, None]
    replay.add(value, value, value + 0.5, torch.tensor(rewards), torch.tensor(done), torch.tensor(ended))


def worked(n_steps, gamma=0.5):
    replay = Replay(10, 1, 1, CPU)
    for reward, done, ended in (
        (1.0, False, False),
        (2.0, False, False),
        (3.0, True, True),  # terminated
        (10.0, False, False),
        (20.0, False, True),  # cut by a limit
        (100.0, False, False),  # still running
    ):
        add(replay, [reward], [done], [ended])
    return NStepReturns(n_steps, gamma).returns(replay, torch.arange(6))


def test_an_episode_that_ends_one_that_is_cut_and_one_that_runs():
    three = worked(3)
    assert three.reward.tolist() == [1 + 1 + 0.75, 2 + 1.5, 3, 10 + 10, 20, 100]
    assert three.next_obs[:, 0].tolist() == [2.5, 2.5, 2.5, 4.5, 4.5, 5.5]
    assert three.discount.tolist() == [0, 0, 0, 0.25, 0.5, 0.5]
    assert three.done.tolist() == [1, 1, 1, 0, 0, 0]
    two = worked(2)
    assert two.reward.tolist() == [2, 3.5, 3, 20, 20, 100]
    assert two.next_obs[:, 0].tolist() == [1.5, 2.5, 2.5, 4.5, 4.5, 5.5]
    assert two.discount.tolist() == [0.25, 0, 0, 0.25, 0.5, 0.5]
    for batch in (two, three):
        assert torch.equal(batch.obs, torch.arange(6.0)[:, None]) and torch.equal(batch.action, batch.obs)


def walked(steps, start, stride, n_steps, gamma):
    """Go step by step through a list of (reward, done, ended)."""
    total, k, place = 0.0, 0, start
    while True:
        reward, done, ended = steps[place]
        total += gamma**k * reward
        k += 1
        if ended or k == n_steps or place + stride >= len(steps):
            return total, place, gamma**k * (not done)
        place += stride


@pytest.mark.parametrize(("n_envs", "capacity", "number"), [(1, 12, 30), (2, 11, 40), (3, 12, 60), (3, 100, 30)])
def test_no_return_crosses_an_end_an_environment_or_the_seam_of_the_ring(n_envs, capacity, number):
    draw = np.random.default_rng(0)
    replay, steps = Replay(capacity, 1, 1, CPU), []
    replay.stride = n_envs
    replay.rows.fill_(torch.nan)  # what is not written yet
    for _ in range(number // n_envs):
        done, ended = draw.random(n_envs) < 0.15, draw.random(n_envs) < 0.15
        reward = draw.random(n_envs)
        steps += zip(reward, done, done | ended)
        add(replay, reward.tolist(), done.tolist(), (done | ended).tolist())
    held = range(max(0, len(steps) - capacity), len(steps))
    batch = NStepReturns(4, 0.9).returns(replay, torch.tensor([s % capacity for s in held]))
    for row, s in enumerate(held):
        total, last, discount = walked(steps, s, n_envs, 4, 0.9)
        assert batch.reward[row] == pytest.approx(total, rel=1e-5)
        assert batch.next_obs[row, 0] == last + 0.5
        assert batch.discount[row] == pytest.approx(discount, rel=1e-6)


def test_the_returns_are_those_of_sb3_s_buffer():
    box = spaces.Box(-1000, 1000, (1,))
    theirs = NStepReplayBuffer(8, box, box, n_steps=3, gamma=0.9)
    ours = Replay(8, 1, 1, CPU)
    draw = np.random.default_rng(1)
    for i in range(13):
        done, cut, reward = draw.random() < 0.2, draw.random() < 0.2, np.float32(draw.random())
        at = np.full((1, 1), i, np.float32)
        infos = [{"TimeLimit.truncated": bool(cut)}]
        theirs.add(at, at + 0.5, at, np.array([reward]), np.array([done | cut]), infos)
        add(ours, [float(reward)], [bool(done and not cut)], [bool(done or cut)])
    wanted = theirs._get_samples(np.arange(8))
    found = NStepReturns(3, 0.9).returns(ours, torch.arange(8))
    torch.testing.assert_close(found.reward, wanted.rewards[:, 0], rtol=1e-6, atol=1e-6)
    assert torch.equal(found.next_obs, wanted.next_observations) and torch.equal(found.done, wanted.dones[:, 0])
    torch.testing.assert_close(found.discount, wanted.discounts[:, 0] * (1 - wanted.dones[:, 0]))


def test_recorded_transitions_lie_one_after_the_other_and_those_met_later_by_environment():
    replay = Replay(20, 1, 1, CPU)
    value = torch.arange(3.0)[:, None]
    replay.add(value, value, value + 0.5, torch.ones(3), torch.zeros(3), torch.tensor([False, False, True]))
    replay.recorded, replay.stride = 3, 2
    for _ in range(2):
        add(replay, [10.0, 20.0], [False] * 2, [False] * 2)
    found = NStepReturns(3, 1.0).returns(replay, torch.arange(7))
    assert found.reward.tolist() == [3, 2, 1, 20, 40, 10, 20]


def test_what_was_cut_or_comes_from_other_environments_stands_alone():
    replay = Replay(20, 1, 1, CPU)
    replay.stride = 2
    for _ in range(2):
        add(replay, [1.0, 2.0], [False] * 2, [False] * 2)
    state = replay.get_state()
    replay.cut()
    add(replay, [4.0, 8.0], [False] * 2, [False] * 2)
    assert NStepReturns(3, 1.0).returns(replay, torch.arange(6)).reward.tolist() == [2, 4, 1, 2, 4, 8]
    other = Replay(20, 1, 1, CPU)
    other.set_state(state)
    assert NStepReturns(3, 1.0).returns(other, torch.arange(4)).reward.tolist() == [1, 2, 1, 2]
