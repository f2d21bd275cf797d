"""The scalar and the vector environment against NLE's own classes, step by step."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("nle")

from nle.env import tasks

from polyathlon.envs.nethack.keys import NLE_DEFAULT_KEYS
from polyathlon.envs.nethack.seeds import game_seeds
from polyathlon.envs.nethack.task import NetHack
from polyathlon.envs.nethack.vector import NetHackVector

STEPS = 2000
KEYS = ("glyphs", "blstats", "message")
CLASSES = {
    "score": tasks.NetHackScore,
    "staircase": tasks.NetHackStaircase,
    "staircase_pet": tasks.NetHackStaircasePet,
    "oracle": tasks.NetHackOracle,
    "gold": tasks.NetHackGold,
    "eat": tasks.NetHackEat,
    "scout": tasks.NetHackScout,
    "challenge": tasks.NetHackChallenge,
}
FOLLOWED = 3  # one action in so many is any, the others walk


class Peer:
    """NLE's class with seeds before each reset; it looks before it quits, so that last observations can be compared."""

    def __init__(self, task: str, keys=KEYS, **options):
        base = CLASSES[task]

        class Unquitting(base):
            def _quit_game(self, observation, done):
                pass

        options.setdefault("fix_moon_phase", True)
        self.env = Unquitting(observation_keys=keys, **options)
        self.base = base

    def reset(self, seed: int, episode: int):
        core, disp = game_seeds(seed, episode)
        self.env.nethack._pynethack.set_initial_seeds(core, disp, False, None)
        self.env._frozen_steps = 0  # NLE carries the count over from the last episode
        obs, _ = self.env.reset()
        return {key: value.copy() for key, value in obs.items()}

    def step(self, action: int):
        obs, reward, done, _, info = self.env.step(action)
        status = int(info["end_status"])
        is_cut = status == -1 and not self.env.nethack._pynethack.done()
        return {k: v.copy() for k, v in obs.items()}, reward, done and not is_cut, is_cut

    def close(self):
        self.env.close()


def assert_equal(found, wanted, where):
    for key, value in wanted.items():
        np.testing.assert_array_equal(found[key], value, err_msg=f"{key} at {where}")


def seeded(task: str, **options):
    """Make our environment; the challenge, which takes no seeds from outside, gets them below the class."""
    env = NetHack(task, **options)
    if task == "challenge":
        object.__setattr__(
            env._game, "options", env._game.options.__class__(**{**vars(env._game.options), "is_seeded": True})
        )
    return env


@pytest.mark.parametrize("task", CLASSES)
def test_each_step_is_that_of_nles_class(task):
    # the challenge, which seldom pays a random walk, is made to charge for its steps
    options = {} if task != "challenge" else {"penalty_step": -0.25, "penalty_mode": "linear"}
    env = seeded(task, observation=KEYS, max_episode_steps=700, **options)
    peer = Peer(task, max_episode_steps=700, fix_moon_phase=task != "challenge", **options)
    rng = np.random.default_rng(5)
    seed, episode, ends = 21, 0, 0
    wanted = peer.reset(seed, episode)
    if task == "challenge":
        env._seed, env._episode = seed, -1
        found, _ = env.reset()
    else:
        found, _ = env.reset(seed=seed)
    assert_equal(found, wanted, "reset")
    rewards = []
    for t in range(STEPS):
        action = int(rng.integers(env.action_space.n))
        if rng.integers(FOLLOWED):  # sixteen ways to walk
            action = int(rng.integers(16)) + (task != "challenge")
        wanted, reward, terminated, truncated = peer.step(action)
        found, own_reward, own_terminated, own_truncated, info = env.step(action)
        assert own_reward == reward, (t, action)
        assert (own_terminated, own_truncated) == (terminated, truncated), (t, info)
        assert_equal(found, wanted, t)
        rewards.append(reward)
        if terminated or truncated:
            ends, episode = ends + 1, episode + 1
            assert_equal(env.reset()[0], peer.reset(seed, episode), f"reset {episode}")
    assert ends >= 2 and len(set(rewards)) > 1
    env.close(), peer.close()


@pytest.mark.parametrize("task", ["score", "scout", "staircase", "eat"])
def test_rows_of_the_vector_are_those_of_nles_class(task):
    rows, steps = 3, 300
    vec = NetHackVector(rows, task=task, observation=KEYS, autoreset_mode="SAME_STEP", max_episode_steps=120)
    peers = [Peer(task, max_episode_steps=120) for _ in range(rows)]
    rng, episodes = np.random.default_rng(9), [0] * rows
    found, _ = vec.reset(seed=40)
    for i, peer in enumerate(peers):
        assert_equal({k: v[i] for k, v in found.items()}, peer.reset(40 + i, 0), "reset")
    for t in range(steps):
        actions = rng.integers(1, 23, rows)
        found, rewards, terminated, truncated, info = vec.step(actions)
        for i, peer in enumerate(peers):
            wanted, reward, has_terminated, has_truncated = peer.step(int(actions[i]))
            assert (rewards[i], terminated[i], truncated[i]) == (reward, has_terminated, has_truncated), (t, i)
            if has_terminated or has_truncated:
                assert_equal(info["final_obs"][i], wanted, (t, i))
                episodes[i] += 1
                wanted = peer.reset(40 + i, episodes[i])
            assert_equal({k: v[i] for k, v in found.items()}, wanted, (t, i))
    assert min(episodes) >= 2
    vec.close()
    for peer in peers:
        peer.close()


def test_all_of_nles_keys_are_equal():
    env = NetHack("score", observation=NLE_DEFAULT_KEYS)
    peer = Peer("score", keys=NLE_DEFAULT_KEYS)
    assert_equal(env.reset(seed=3)[0], peer.reset(3, 0), "reset")
    rng = np.random.default_rng(1)
    for t in range(150):
        action = int(rng.integers(23))
        assert_equal(env.step(action)[0], peer.step(action)[0], t)
    assert env.observation_space == peer.env.observation_space
    env.close(), peer.close()
