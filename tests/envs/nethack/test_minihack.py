"""MiniHack's levels; these tests run where MiniHack is installed (scripts/test has an environment for it)."""

from __future__ import annotations

import importlib.util

import gymnasium as gym
import numpy as np
import pytest

import polyathlon  # noqa: F401
from polyathlon.envs.errors import UsageError

pytest.importorskip("nle")
HAS_MINIHACK = importlib.util.find_spec("minihack") is not None
needs_minihack = pytest.mark.skipif(not HAS_MINIHACK, reason="MiniHack is not installed")
KEYS = ("glyphs", "blstats", "message")
DES = """MAZE: "mylevel", ' '
GEOMETRY: center, center
MAP
-------
|.....|
|.....|
-------
ENDMAP
REGION:(0,0,7,4),lit,"ordinary"
BRANCH:(1,1,1,1),(0,0,0,0)
STAIR:(5,2),down
OBJECT:('%',"apple"),(2,1)
"""


@pytest.mark.skipif(HAS_MINIHACK, reason="MiniHack is installed")
def test_without_minihack_the_extra_is_named():
    with pytest.raises(ImportError, match=r"polyathlon\[minihack\]"):
        gym.make("polyathlon/NetHack-v0", task="minihack:Room-15x15")


@needs_minihack
@pytest.mark.parametrize("name", ["Room-5x5", "Room-Monster-5x5", "Eat"])
def test_a_level_is_equal_to_minihacks_own(name):
    from polyathlon.envs.nethack.seeds import game_seeds

    env = gym.make("polyathlon/NetHack-v0", task=f"minihack:{name}", observation=KEYS)
    peer = gym.make(f"MiniHack-{name}-v0", observation_keys=KEYS, fix_moon_phase=True).unwrapped
    peer._quit_game = lambda observation, done: None
    assert env.action_space.n == len(peer.actions)
    rng, seed, episode, ends = np.random.default_rng(4), 8, 0, []

    def reset(first):
        found, _ = env.reset(seed=seed if first else None)
        core, disp = game_seeds(seed, episode)
        peer.seed(core, disp, reseed=False)
        peer._frozen_steps = 0
        wanted, _ = peer.reset()
        for key in KEYS:
            np.testing.assert_array_equal(found[key], wanted[key])

    reset(True)
    for _ in range(400):
        action = int(rng.integers(env.action_space.n))
        found, reward, terminated, truncated, _ = env.step(action)
        wanted, own, done, _, info = peer.step(action)
        assert reward == own and (terminated or truncated) == done
        assert truncated == (int(info["end_status"]) == -1)
        for key in KEYS:
            np.testing.assert_array_equal(found[key], wanted[key])
        if done:
            ends.append(terminated)
            episode += 1
            reset(False)
    assert ends
    env.close(), peer.close()


@needs_minihack
def test_rows_and_scalars_agree_on_a_level():
    vec = gym.make_vec("polyathlon/NetHack-v0", num_envs=2, task="minihack:Room-5x5", autoreset_mode="DISABLED")
    env = gym.make("polyathlon/NetHack-v0", task="minihack:Room-5x5")
    found, _ = vec.reset(seed=3)
    wanted, _ = env.reset(seed=4)
    for action in [2, 4, 4, 1, 7]:
        np.testing.assert_array_equal(found["glyphs"][1], wanted["glyphs"])
        found, rewards, terminated, _, _ = vec.step(np.full(2, action))
        wanted, reward, ended, _, _ = env.step(action)
        assert rewards[1] == reward and terminated[1] == ended
        if terminated.any():
            break
    vec.close(), env.close()


@needs_minihack
def test_a_des_file_with_a_reward_manager_pays_what_it_says():
    from minihack import RewardManager

    manager = RewardManager()
    manager.add_eat_event("apple", reward=2.5, terminal_required=True)
    env = gym.make("polyathlon/NetHack-v0", des_file=DES, reward_manager=manager, actions="full")
    env.reset(seed=1)
    keys = env.unwrapped.keys
    total, terminated = 0.0, False
    for key in "leyy":  # step on the apple and eat it from the floor
        _, reward, terminated, _, _ = env.step(keys.index(ord(key)))
        total += reward
        if terminated:
            break
    assert terminated and total == pytest.approx(2.5, abs=0.05)
    env.close()


@needs_minihack
def test_levels_and_des_files_that_do_not_exist_or_fail_are_refused():
    with pytest.raises(UsageError, match="Room-15x15"):
        gym.make("polyathlon/NetHack-v0", task="minihack:Rom-15x15")
    with pytest.raises(UsageError, match=r"error.*[Ll]ine 3"):
        gym.make("polyathlon/NetHack-v0", des_file=DES.replace("MAP\n", "MAPP\n", 1))
    with pytest.raises(UsageError, match="no des-file"):
        gym.make("polyathlon/NetHack-v0", des_file="missing.des")
    with pytest.raises(UsageError, match="des_file"):
        gym.make("polyathlon/NetHack-v0", task="minihack:Skill-Custom")
    with pytest.raises(UsageError, match="MiniHack's levels"):
        gym.make("polyathlon/NetHack-v0", task="gold", des_file=DES)
