"""Goals in hindsight against SB3's HerReplayBuffer on one recorded stream, and the whole episodes of a ring against a list."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer as SB3HerReplayBuffer
from stable_baselines3.her.goal_selection_strategy import GoalSelectionStrategy

from polyathlon.agents.parts.hindsight import HerReplayBuffer
from polyathlon.agents.parts.parts_replay import PartsReplay
from polyathlon.agents.parts.whole_episodes import WholeEpisodes
from polyathlon.envs.errors import UsageError

CPU = torch.device("cpu")
GOAL = spaces.Box(-1000, 1000, (2,), np.float32)
SPACE = spaces.Dict({"observation": GOAL, "achieved_goal": GOAL, "desired_goal": GOAL})
ACTION = spaces.Box(-1, 1, (1,), np.float32)


class Rewards:
    """Pays for the distance, and for what the infos say."""

    calls = 0

    def env_method(self, name, achieved, desired, infos, indices):
        assert name == "compute_reward" and indices == [0]
        type(self).calls += 1
        bonus = np.array([info.get("bonus", 0.0) for info in infos])
        return [-np.linalg.norm(achieved - desired, axis=-1) + bonus]

    def ours(self, achieved, desired, infos):
        return torch.as_tensor(self.env_method("compute_reward", achieved.numpy(), desired.numpy(), infos, [0])[0])


def both(n_envs, capacity, steps, copy_info_dict=False, strategy="future", seed=0):
    """SB3's buffer and ours, filled with the same steps."""
    words = {"n_sampled_goal": 4, "goal_selection_strategy": strategy, "copy_info_dict": copy_info_dict}
    theirs = SB3HerReplayBuffer(capacity, SPACE, ACTION, Rewards(), "cpu", n_envs, **words)
    ours, sampler = PartsReplay(capacity, SPACE, 1, CPU), HerReplayBuffer(**words)
    sampler.join(ours, n_envs, GOAL, Rewards().ours)
    draw = np.random.default_rng(seed)
    for _ in range(steps):
        obs, next_obs = ({k: draw.random((n_envs, 2), np.float32) for k in SPACE.spaces} for _ in range(2))
        action, reward = draw.random((n_envs, 1), np.float32), draw.random(n_envs, np.float32)
        done, cut = draw.random(n_envs) < 0.15, draw.random(n_envs) < 0.1
        infos = [{"bonus": float(b), "TimeLimit.truncated": bool(c & ~d)} for b, c, d in zip(reward, cut, done)]
        theirs.add(obs, next_obs, action, reward, done | cut, infos)
        shown, after = ({k: torch.as_tensor(v) for k, v in each.items()} for each in (obs, next_obs))
        tensors = [torch.as_tensor(x) for x in (reward, done, done | cut)]
        ours.add(shown, torch.as_tensor(action), after, *tensors)
        if copy_info_dict:
            sampler.note(ours, infos)
    return theirs, ours, sampler


@pytest.mark.parametrize("strategy", ["future", "final", "episode"])
@pytest.mark.parametrize(("n_envs", "capacity", "steps"), [(1, 200, 90), (1, 40, 130), (3, 90, 25), (3, 60, 110)])
def test_goals_and_rewards_are_sb3_s_for_the_same_indices(monkeypatch, strategy, n_envs, capacity, steps):
    theirs, ours, sampler = both(n_envs, capacity, steps, copy_info_dict=True, strategy=strategy)
    valid = np.flatnonzero(theirs.ep_length > 0)  # row by row, as our places
    counts = sampler.episodes.count()
    assert int(counts.sum()) == len(valid) > 0
    even = (torch.arange(len(valid), dtype=torch.float64) + 0.5) / len(valid)
    assert sorted(sampler.episodes.draw(even).tolist()) == valid.tolist()  # each once

    u = torch.rand(len(valid), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    monkeypatch.setattr(np.random, "randint", lambda low, high: low + np.floor(u.numpy() * (high - low)).astype(int))
    rows, envs = np.unravel_index(valid, theirs.ep_length.shape)
    wanted = theirs._get_virtual_samples(rows, envs)
    calls = Rewards.calls
    found = sampler.relabelled(ours, torch.as_tensor(valid), u)
    assert Rewards.calls == calls + 1
    for key in SPACE.spaces:
        assert torch.equal(found.obs[key], wanted.observations[key]), key
        assert torch.equal(found.next_obs[key], wanted.next_observations[key]), key
    torch.testing.assert_close(found.reward, wanted.rewards[:, 0], rtol=0, atol=0)
    assert torch.equal(found.done, wanted.dones[:, 0]) and torch.equal(found.action, wanted.actions)
    real = sampler.relabelled(ours, torch.as_tensor(valid), u[:0])
    kept = theirs._get_real_samples(rows, envs)
    assert torch.equal(real.obs["desired_goal"], kept.observations["desired_goal"])
    assert torch.equal(real.reward, kept.rewards[:, 0])


def test_the_share_of_new_goals_and_the_memory_stay_as_they_are():
    _, ours, sampler = both(2, 100, 60)
    before = {key: part.clone() for key, part in ours.obs.items()}
    batch = ours.sample(50, torch.Generator().manual_seed(1))
    places = sampler.episodes.draw(
        torch.rand(2, 50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)[0]
    )
    own = (batch.obs["desired_goal"] == ours.obs["desired_goal"][places]).all(1)
    assert own.tolist() == [False] * 40 + [True] * 10
    assert (
        torch.equal(batch.obs["desired_goal"], batch.next_obs["desired_goal"]) is False
    )  # own goals are drawn apart here
    assert torch.equal(batch.obs["desired_goal"][:40], batch.next_obs["desired_goal"][:40])
    assert all(torch.equal(ours.obs[key], part) for key, part in before.items())
    assert torch.equal(batch.obs["observation"], ours.obs["observation"][places])


def test_future_goals_are_never_past_ones_and_all_strategies_keep_to_the_episode():
    for strategy in ("future", "final", "episode"):
        _, _, sampler = both(2, 60, 100, strategy=strategy, seed=3)
        draws = torch.rand(2, 4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        place = sampler.episodes.draw(draws[0])
        goal = sampler.goal_places(place, draws[1])
        (current, length), (chosen, other) = sampler.episodes.span(place), sampler.episodes.span(goal)
        assert torch.equal(sampler.episodes.first[place], sampler.episodes.first[goal]) and torch.equal(length, other)
        assert (chosen >= current).all() == (strategy != "episode")
        assert (chosen == length - 1).all() == (strategy == "final")
        assert set((chosen - current).tolist()) >= {0, 1}


def test_whole_episodes_are_those_of_a_list_through_many_rounds_of_the_ring():
    draw = np.random.default_rng(5)
    for n_envs, capacity in ((1, 7), (2, 12), (3, 30)):
        episodes, begun, number = WholeEpisodes(capacity, n_envs, CPU), [[] for _ in range(n_envs)], 0
        ended_ones = []
        for _ in range(120):
            ended = draw.random(n_envs) < 0.25
            episodes.add(number, torch.as_tensor(ended))
            for row in range(n_envs):
                begun[row].append(number + row)
                if ended[row]:
                    ended_ones.append(begun[row])
                    begun[row] = []
            number += n_envs
            whole = [each for each in ended_ones if each[0] >= number - capacity]
            wanted = sorted(s % capacity for each in whole for s in each)
            assert int(episodes.count().sum()) == len(wanted)
            if wanted:
                even = (torch.arange(len(wanted), dtype=torch.float64) + 0.5) / len(wanted)
                assert sorted(episodes.draw(even).tolist()) == wanted
                spans = {s % capacity: (k, len(each)) for each in whole for k, s in enumerate(each)}
                current, length = episodes.span(torch.tensor(wanted))
                assert list(zip(current.tolist(), length.tolist())) == [spans[place] for place in wanted]


def test_an_episode_that_runs_is_used_once_it_is_cut():
    replay, sampler = PartsReplay(20, SPACE, 1, CPU), HerReplayBuffer(goal_selection_strategy="final")
    sampler.join(replay, 1, GOAL, Rewards().ours)
    value = torch.arange(6.0)[:, None].expand(6, 2)
    flags = torch.zeros(1, dtype=torch.bool)
    for i in range(6):
        obs = {key: value[i : i + 1] for key in SPACE.spaces}
        replay.add(
            obs,
            torch.zeros(1, 1),
            {**obs, "achieved_goal": value[i : i + 1] + 1},
            torch.zeros(1),
            flags,
            flags | (i == 2),
        )
    assert sorted(set(sampler.episodes.draw(torch.rand(100, dtype=torch.float64)).tolist())) == [0, 1, 2]
    state = replay.get_state()
    replay.cut()
    assert int(sampler.episodes.count()) == 6
    assert sampler.goal_places(torch.tensor([3, 4, 5]), torch.zeros(3)).tolist() == [5, 5, 5]
    again, fresh = PartsReplay(20, SPACE, 1, CPU), HerReplayBuffer()
    fresh.join(again, 1, GOAL, Rewards().ours)
    again.set_state(state)
    assert int(fresh.episodes.count()) == 3
    with pytest.raises(UsageError, match="needs to know where the episodes"):
        again.set_state({**state, "sampler": None})


def test_without_a_whole_episode_nothing_is_drawn():
    replay, sampler = PartsReplay(20, SPACE, 1, CPU), HerReplayBuffer()
    sampler.join(replay, 1, GOAL, Rewards().ours)
    with pytest.raises(UsageError, match="none has: let learning_starts be more than the longest episode"):
        replay.sample(4, torch.Generator())


def test_words_are_sb3_s():
    assert HerReplayBuffer(goal_selection_strategy=GoalSelectionStrategy.FINAL).settings() == {
        "n_sampled_goal": 4,
        "goal_selection_strategy": "final",
        "copy_info_dict": False,
    }
    with pytest.raises(UsageError, match=r"unknown goal selection strategy 'futur'. Did you mean 'future'"):
        HerReplayBuffer(goal_selection_strategy="futur")
    with pytest.raises(UsageError, match="n_sampled_goal must be an integer of at least 0"):
        HerReplayBuffer(n_sampled_goal=-1)


def test_infos_are_kept_as_files_can_hold_them():
    theirs, ours, sampler = both(1, 50, 60, copy_info_dict=True)
    sampler.note(
        ours, [{"array": np.arange(3), "number": np.float64(2.5), "object": object(), "nested": {"x": (1, "y")}}]
    )
    kept = sampler.infos[(ours.position - 1) % 50]
    assert kept["array"].tolist() == [0, 1, 2] and kept["number"] == 2.5 and kept["nested"] == {"x": [1, "y"]}
    assert "object" not in kept and len(sampler.infos) == 50
