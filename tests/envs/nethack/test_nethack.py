"""Seeds, ends, saved states, folders, recordings and bad input."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import polyathlon
from polyathlon.envs.errors import UsageError

pytest.importorskip("nle")

from polyathlon.envs.nethack.block import Block
from polyathlon.envs.nethack.folders import lock_folder, sweep
from polyathlon.envs.nethack.output import Copies
from polyathlon.envs.nethack.rules import Rules
from polyathlon.envs.nethack.seeds import game_seeds
from polyathlon.envs.nethack.task import NetHack
from polyathlon.envs.nethack.vector import NetHackVector
from polyathlon.envs.nethack.views import new_frame
from polyathlon.envs.nethack.workers import WorkerError
from polyathlon.envs.tensor.copies import changes_since_made, copy_envs

ID = "polyathlon/NetHack-v0"


def walk(env, steps: int, seed: int = 0) -> list:
    """Return what a random walk of one game shows."""
    rng, seen = np.random.default_rng(seed), []
    for _ in range(steps):
        obs, reward, terminated, truncated, info = env.step(int(rng.integers(1, 17)))
        seen.append((obs["blstats"].tolist(), obs["glyphs"].sum(), reward, terminated, truncated, info["depth"]))
        if terminated or truncated:
            break
    return seen


@pytest.fixture
def env():
    made = NetHack("score")
    yield made
    made.close()


# ------------------------------------------------------------------------------------------------------------- seeds


def test_seeds_hold_in_instances_and_after_a_second_reset(env):
    other = NetHack("score")
    env.reset(seed=7), other.reset(seed=7)
    first = walk(env, 300)
    assert first == walk(other, 300)
    env.reset(seed=7)
    assert first == walk(env, 300)
    env.reset()
    assert first[:20] != walk(env, 20), "the next episode is another one"
    other.close()


def test_game_seeds_depend_on_both_numbers():
    assert game_seeds(1, 2) == game_seeds(1, 2)
    assert len({game_seeds(s, e) for s in range(3) for e in range(3)}) == 9


def test_levels_can_be_fixed():
    env = NetHack("score", lgen=5)
    maps = []
    for seed in (1, 2):
        obs, _ = env.reset(seed=seed)
        maps.append(obs["glyphs"])
    walls = [(found >= 2360) & (found <= 2370) for found in maps]
    assert (walls[0] & walls[1]).sum() > 0.5 * walls[0].sum()
    env.close()


def test_the_challenge_takes_no_seed():
    env = NetHack("challenge")
    env.reset()
    with pytest.raises(UsageError, match="no seed"):
        env.reset(seed=1)
    with pytest.raises(UsageError, match="cannot be entered again"):
        env.set_state(env.get_state())
    assert env.action_space.n == 121 and env.settings.limit == 1_000_000
    env.close()
    with pytest.raises(UsageError, match="no seed"):
        NetHackVector(1, task="challenge").reset(seed=1)
    with pytest.raises(UsageError, match="no seed"):
        gym.make(ID, task="challenge", observation="words").reset(seed=1)


# -------------------------------------------------------------------------------------------------------------- ends


@pytest.mark.parametrize("limit", [10, 5005])
def test_one_argument_sets_every_limit(limit):
    env = gym.make(ID, max_episode_steps=limit, spawn_monsters=False)
    env.reset(seed=1)
    for t in range(limit):
        _, _, terminated, truncated, info = env.step(22 if t % 20 else 19)  # search, and wait
        if terminated:
            return  # it starved or was killed before a long limit
        assert truncated == (t + 1 == limit), t
    env.close()
    vec = gym.make_vec(ID, num_envs=1, max_episode_steps=10)
    vec.reset(seed=1)
    for t in range(10):
        *_, truncated, info = vec.step(np.array([22]))
        assert truncated[0] == (t == 9) and info["end_status"][0] == (-1 if t == 9 else 0)
    vec.close()


def test_a_limit_is_no_end_and_shows_what_the_hero_saw():
    env = NetHack("score", max_episode_steps=3)
    env.reset(seed=1)
    for _ in range(3):
        obs, _, terminated, truncated, info = env.step(22)
    assert truncated and not terminated and info["end_status"] == -1
    assert obs["blstats"][10] > 0 and "how_done" not in info
    with pytest.raises(UsageError, match="over"):
        env.step(0)
    env.close()


def test_death_says_how_and_where():
    env = NetHack("score", character="arc-hum-law-fem")
    env.reset(seed=3)
    rng = np.random.default_rng(0)
    for _ in range(20_000):
        obs, _, terminated, truncated, info = env.step(int(rng.integers(1, 17)))
        if terminated:
            break
        if truncated:
            env.reset()
    assert terminated and info["end_status"] == 1 and info["how_done"].isupper() and not info["is_ascended"]
    assert info["death"] and info["depth"] >= 1 and info["turns"] > 1 and info["achievements"] == ()
    assert not obs["blstats"].any()  # NLE's own numbers are gone by then
    env.close()


@pytest.mark.parametrize(
    ("mode", "frozen", "wanted"),
    [
        ("constant", 0, 0),
        ("constant", 3, -1),
        ("exp", 3, -8),
        ("square", 3, -9),
        ("linear", 3, -3),
        ("always", 0, -1),
        ("exp", 1100, -(2.0**100)),
    ],  # one game raised an OverflowError, many were paid minus infinity
)
def test_penalties_grow_as_they_say(mode, frozen, wanted):
    rules = Rules("score", mode, -1.0)
    assert rules.penalty(frozen, 0) == wanted
    assert rules.penalty(np.array([frozen] * 2), np.zeros(2)).tolist() == [wanted] * 2
    assert Rules("score", mode, -1.0, 0.5).penalty(frozen, 4) == wanted + 2


# ------------------------------------------------------------------------------------------------------------- states


def test_a_state_is_played_again_and_one_that_ends_early_is_an_error(env):
    env.reset(seed=5), env.reset()
    walk(env, 30)
    copy = pickle.loads(pickle.dumps(env))
    assert walk(copy, 50, seed=1) == walk(env, 50, seed=1)
    mortal = NetHack("staircase")
    state = mortal_state(mortal)
    with pytest.raises(UsageError, match="ended after"):
        mortal.set_state({**state, "actions": np.append(state["actions"], 0)})
    copy.close(), mortal.close()


def mortal_state(env) -> dict:
    """Return the state of an episode that ended."""
    rng = np.random.default_rng(2)
    env.reset(seed=2)
    while True:
        _, _, terminated, truncated, _ = env.step(int(rng.integers(1, 17)))
        if terminated:
            return env.get_state()
        if truncated:
            env.reset()


def test_one_worker_is_this_process():
    for rows, workers in ((2, 1), (1, 2)):
        vec = NetHackVector(rows, workers=workers)
        assert isinstance(vec.games, Block)
        vec.close()


def test_workers_play_the_same_games_and_end_with_their_owner():
    rng = np.random.default_rng(0)
    plain = NetHackVector(3, autoreset_mode="SAME_STEP", max_episode_steps=25)
    spread = NetHackVector(3, autoreset_mode="SAME_STEP", max_episode_steps=25, workers=2, render_mode="rgb_array")
    found = [vec.reset(seed=9) for vec in (plain, spread)]
    for _ in range(60):
        for key in ("glyphs", "blstats", "message"):
            np.testing.assert_array_equal(found[0][0][key], found[1][0][key])
        actions = rng.integers(0, 23, 3)
        found = [vec.step(actions) for vec in (plain, spread)]
        np.testing.assert_array_equal(found[0][1], found[1][1])
    assert len(spread.games.processes) == 1  # the other block is played in this process
    for row in range(3):
        drawn = [new_frame(), new_frame()]
        for vec, frame in zip((plain, spread), drawn, strict=True):
            vec.games.draw_level(row, frame)
        assert drawn[0].std() > 0
        np.testing.assert_array_equal(*drawn)
    state = spread.get_state()
    plain.set_state(state)
    np.testing.assert_array_equal(plain.step(actions)[0]["glyphs"], spread.step(actions)[0]["glyphs"])
    spread.games.processes[0].kill()
    with pytest.raises(WorkerError, match="gone"):
        for _ in range(3):
            spread.step(actions)
    spread.close(), plain.close()
    assert all(process.returncode is not None for process in spread.games.processes)


@pytest.mark.parametrize("amid", ["step", "reset"])
def test_a_step_or_reset_that_an_interrupt_ends_midway_is_made_up_for(monkeypatch, amid):
    broken, whole = (NetHackVector(2, max_episode_steps=50) for _ in range(2))

    def interrupted(*given):
        raise KeyboardInterrupt

    for env in (broken, whole):
        env.reset(seed=4)
        env.step(np.array([1, 2]))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if amid == "step":
            patch.setattr(broken.games, "_press", [broken.games._press[0], interrupted])
            broken.step(np.array([3, 1]))
        else:
            patch.setattr(broken.games.games[1], "begin", interrupted)
            broken.reset(seed=8)
    if amid == "reset":
        whole.reset(seed=8)
    for actions in ([2, 2], [1, 3]):
        found, wanted = broken.step(np.array(actions)), whole.step(np.array(actions))
        for name in wanted[0]:
            np.testing.assert_array_equal(found[0][name], wanted[0][name])
        np.testing.assert_array_equal(found[1], wanted[1])
    np.testing.assert_equal(broken.get_state(), whole.get_state())
    broken.close(), whole.close()


@pytest.mark.parametrize("amid", ["the games of this process", "the wait for the others"])
def test_an_interrupt_in_a_step_leaves_no_answer_behind_that_a_later_step_would_take_for_its_own(monkeypatch, amid):
    plain = NetHackVector(2, max_episode_steps=50)
    spread = NetHackVector(2, max_episode_steps=50, workers=2, render_mode="rgb_array")
    plain.reset(seed=0), spread.reset(seed=0)

    def interrupted(*called):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if amid == "the wait for the others":
            patch.setattr(spread.games, "_collect", interrupted)
        else:
            patch.setattr(spread.games.own, "_press", [interrupted])
        with pytest.raises(KeyboardInterrupt):
            spread.step(np.array([0, 0]))
    for number in range(4):
        found, wanted = spread.reset(seed=number)[0], plain.reset(seed=number)[0]
        for action in range(5):
            for key, array in wanted.items():
                np.testing.assert_array_equal(found[key], array)
            found, wanted = (vec.step(np.array([action, action]))[0] for vec in (spread, plain))
    assert spread.render()[0].std() > 0
    spread.close(), plain.close()


def test_vectors_refuse_seeds_that_their_rows_cannot_take_and_return_to_the_state_before_a_reset():
    vec = NetHackVector(2)
    before = vec.get_state()
    with pytest.raises(UsageError, match="seed \\+ i"):
        vec.reset(seed=2**63 - 1)
    vec.reset(seed=1)
    vec.set_state(before)
    with pytest.raises(UsageError, match="reset"):
        vec.step(np.array([1, 1]))
    vec.close()
    env = NetHack()
    before = env.get_state()
    env.reset(seed=1)
    env.set_state(before)
    with pytest.raises(UsageError, match="reset"):
        env.step(1)
    env.close()


# ------------------------------------------------------------------------------------------------- folders and files


def folders() -> set[str]:
    return {one.name for one in Path(tempfile.gettempdir()).glob("nle*")}


def test_folders_go_with_their_games_and_two_vectors_live_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # other tests make games beside this one
    before = folders()
    first, second = NetHackVector(2), NetHackVector(2)
    assert len(folders() - before) == 4
    first.reset(seed=1), second.reset(seed=1)
    first.close()
    second.step(np.array([1, 2]))
    second.close(), second.close()
    assert folders() <= before
    with pytest.raises(UsageError, match="closed"):
        second.step(np.array([1, 2]))
    with pytest.raises(UsageError):
        NetHack("score", savedir="x")
    with pytest.raises(Exception):
        NetHack("score", options=("nonsense_option",)).reset(seed=1)
    gc.collect()
    assert folders() <= before


def test_what_a_killed_process_leaves_is_swept_and_nothing_else(tmp_path):
    code = (
        f"import time, tempfile; tempfile.tempdir = r'{tmp_path}'\n"
        "from polyathlon.envs.nethack.vector import NetHackVector\n"
        "env = NetHackVector(2); env.reset(seed=0); print('ready', flush=True); time.sleep(60)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env)
    assert process.stdout.readline() == b"ready\n"
    foreign, mine = tmp_path / "nle_of_others", tmp_path / "nlemine"
    foreign.mkdir(), mine.mkdir()
    lock = lock_folder(mine)
    assert sweep(tmp_path) == []  # all of them live
    process.send_signal(signal.SIGKILL)
    process.wait(), process.stdout.close()
    end = time.monotonic() + 5
    swept: list[Path] = []
    while len(swept) < 2 and time.monotonic() < end:
        swept += sweep(tmp_path)
    assert len(swept) == 2 and foreign.exists() and mine.exists()
    os.close(lock)


def test_a_fork_leaves_the_games_of_its_parent_alone():
    env = NetHack("score")
    env.reset(seed=1)
    vec = gym.vector.AsyncVectorEnv([lambda: gym.make(f"polyathlon:{ID}") for _ in range(2)])
    vec.reset(seed=3), vec.step(np.array([1, 2])), vec.close()
    walk(env, 5)
    assert Path(env._game._nethack._vardir).exists()
    env.close()


def test_many_resets_keep_nothing():
    env = NetHack("score")
    env.reset(seed=0)

    def held():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(os.listdir("/proc/self/fd"))

    for _ in range(100):
        env.reset()
    before = held()
    for _ in range(300):
        env.reset()
    after = held()
    assert after[0] - before[0] < 8 and after[1] == before[1]
    env.close()


def test_games_are_recorded(tmp_path):
    env = NetHack("score", save_ttyrec_every=2, savedir=tmp_path, max_episode_steps=5)
    for episode in range(4):
        env.reset(seed=1 if episode == 0 else None)
        walk(env, 5)
    env.close()
    import bz2

    found = sorted(tmp_path.glob("*.ttyrec3.bz2"))
    assert [one.name.split(".")[3] for one in found] == ["0", "2"]
    assert all(b"Agent" in bz2.decompress(one.read_bytes()) for one in found)


def test_the_game_is_shown_as_a_picture_and_as_a_terminal():
    env = NetHack("score", render_mode="rgb_array")
    with pytest.raises(UsageError, match="reset"):
        env.render()
    env.reset(seed=1)
    assert env.render().shape == (336, 1264, 3) and env.render().std() > 0
    env.close()
    env = NetHack("score", render_mode="ansi", wizard=True)
    env.reset(seed=1)
    shown = env.render()
    assert "Dlvl:1" in shown and "@" in shown and max(map(len, shown.splitlines())) < 250
    env.close()


@pytest.mark.parametrize("crop", [5, None])
def test_pictures_show_the_tiles_round_the_hero(crop):
    env, vec = NetHack("score", observation="pixels", crop=crop), NetHackVector(2, observation="pixels", crop=crop)
    seen, rows = env.reset(seed=3)[0], vec.reset(seed=2)[0]
    assert env.observation_space.contains(seen) and seen.std() > 0
    np.testing.assert_array_equal(seen, rows[1])
    if crop is not None:
        whole = NetHack("score", observation="pixels", crop=None)
        level, _ = whole.reset(seed=3)
        x, y = whole.views()["blstats"][:2].tolist()
        np.testing.assert_array_equal(seen[32:48, 32:48], level[16 * y : 16 * y + 16, 16 * x : 16 * x + 16])
        whole.close()
    env.close(), vec.close()


def test_memory_that_is_held_is_never_written_again():
    copies, source = Copies(), np.zeros(1 << 15)
    first = copies.of("a", source)
    view = copies.of("a", source)[:3]
    source += 1
    third = copies.of("a", source)
    assert not first.any() and not view.any() and third.all()
    place = third.ctypes.data
    del third
    assert copies.of("a", source).ctypes.data == place  # and memory that nobody holds is


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "scor"}, "'score'"),
        ({"observation": ("glyphs", "blstat")}, "'blstats'"),
        ({"observation": "pixel"}, "'pixels'"),
        ({"observation": "message"}, "tuple"),
        ({"observation": ()}, "at least one"),
        ({"observation": ("glyphs", "glyphs")}, "twice"),
        ({"observation": ("internal",)}, "unknown observation key"),
        ({"actions": "ful"}, "'full'"),
        ({"max_episode_steps": 0}, "max_episode_steps"),
        ({"character": "xyz-hum-neu-mal"}, "role"),
        ({"character": "monk"}, "role-race"),
        ({"penalty_mode": "squared"}, "'square'"),
        ({"penalty_step": "x"}, "penalty_step"),
        ({"penalty_time": float("inf")}, "penalty_time must be a finite number"),
        ({"options": 5}, "options is a list"),
        ({"lgen": -1}, "lgen"),
        ({"crop": 4}, "odd"),
        ({"wizard": 1}, "wizard"),
        ({"savedir": "x"}, "save_ttyrec_every"),
        ({"render_mode": "human"}, "render_mode"),
        ({"speed": 3}, "option"),
        ({"task": "challenge", "lgen": 3}, "no seeds"),
        ({"task": "challenge", "wizard": True}, "wizard"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        NetHack(**options)
    with pytest.raises(UsageError, match=message):
        NetHackVector(1, **options)


@pytest.mark.parametrize("seed", [-1, 1.5, "1", True])
def test_impossible_seeds_are_refused(env, seed):
    with pytest.raises(UsageError, match="seed"):
        env.reset(seed=seed)


@pytest.mark.parametrize("action", [23, -1, 1.0, "k", None, [1], True])
def test_impossible_actions_are_refused(env, action):
    env.reset(seed=1)
    with pytest.raises((UsageError, TypeError), match="action"):
        env.step(action)


def test_a_step_before_the_reset_and_reset_options_are_refused(env):
    with pytest.raises(UsageError, match="reset"):
        env.step(1)
    with pytest.raises(UsageError, match="options"):
        env.reset(seed=1, options={"task": 3})
    vec = NetHackVector(2)
    with pytest.raises(UsageError, match="reset"):
        vec.step(np.zeros(2, np.int64))
    vec.reset(seed=[1, 2])
    for wrong in (np.zeros(3, np.int64), np.zeros(2), np.array([0, 23])):
        with pytest.raises((UsageError, TypeError), match="actions"):
            vec.step(wrong)
    for seed, text in (([1], "2 rows"), (-1, "seed")):
        with pytest.raises(UsageError, match=text):
            vec.reset(seed=seed)
    with pytest.raises(UsageError, match="workers"):
        NetHackVector(2, workers=-1)
    vec.close()
    env.close(), env.close()
    with pytest.raises(UsageError, match="closed"):
        env.reset()


def test_words_have_no_vector_but_a_batch():
    with pytest.raises(UsageError, match=r"batch\(n\)"):
        gym.make_vec(ID, num_envs=2, vectorization_mode="vector_entry_point", observation="words")


def test_a_resumed_run_gives_the_numbers_of_an_unbroken_one(tmp_path):
    import torch

    from polyathlon.agents import PPO

    def make():
        return gym.make_vec(
            ID, num_envs=2, vectorization_mode="vector_entry_point", autoreset_mode="SAME_STEP", output="torch",
            max_episode_steps=11,
        )  # fmt: skip

    settings = {"n_steps": 16, "batch_size": 16, "n_epochs": 1, "seed": 2, "device": "cpu"}
    agent = PPO("MultiInputPolicy", make(), **settings).learn(32)
    agent.checkpoint(tmp_path / "checkpoint")
    agent.learn(32, reset_num_timesteps=False)
    resumed = PPO.resume(tmp_path / "checkpoint", make(), device="cpu").learn(32, reset_num_timesteps=False)
    for first, second in zip(agent.policy.parameters(), resumed.policy.parameters()):
        assert torch.equal(first, second)
    assert list(agent.ep_info_buffer) == list(resumed.ep_info_buffer)


@pytest.mark.parametrize("observation", ["glyphs", "pixels"])
def test_features_read_rows_and_scalars_alike(observation):
    import torch

    from polyathlon.agents.parts.features import Preparation, extractor_for

    vec = NetHackVector(2, observation=observation, crop=5, output="torch")
    obs, _ = vec.reset(seed=1)
    prepare = Preparation(vec.single_observation_space)  # which puts the channels of pictures in front
    extractor = extractor_for(prepare.space)(prepare.space)
    rows = {k: v.float() for k, v in obs.items()} if isinstance(obs, dict) else prepare(obs)
    both = extractor(rows)
    one = extractor({k: v[1:] for k, v in rows.items()} if isinstance(rows, dict) else rows[1:])
    assert torch.allclose(both[1:], one, atol=1e-5) and both.shape == (2, extractor.features_dim)
    if observation == "glyphs":
        around = extractor.around(obs["glyphs"].long(), obs["blstats"].float()).view(2, 9, 9)
        for row in range(2):
            x, y = obs["blstats"][row, :2].tolist()
            for dy, dx in ((0, 0), (-4, 3), (4, 4)):
                inside = 0 <= y + dy < 21 and 0 <= x + dx < 79
                wanted = int(obs["glyphs"][row, y + dy, x + dx]) if inside else extractor.number
                assert int(around[row, 4 + dy, 4 + dx]) == wanted
    vec.close()


def test_the_fixed_encoding_shows_the_crop_and_the_message():
    from polyathlon.wrappers import VectorObservation

    env = VectorObservation(NetHack("score"))
    first, _ = env.reset(seed=1)
    again, _ = env.reset(seed=1)
    other, _ = env.reset(seed=2)
    np.testing.assert_array_equal(first, again)
    assert env.observation_space.contains(first) and not np.array_equal(first, other)
    assert first.size == 9 * 9 * 8 + 27 + 256
    env.close()


def test_pictures_are_averaged_for_agents_with_flat_networks():
    from polyathlon.wrappers import VectorObservation

    env = polyathlon.adapt(gym.make(ID, observation="pixels", crop=3), "sac")
    assert any(isinstance(layer, VectorObservation) for layer in layers(env))
    picture, _ = env.unwrapped.reset(seed=1)
    found, _ = env.reset(seed=1)
    assert env.observation_space.contains(found) and found.shape == (12 * 12 * 3,)
    # 48 pixels a side: fields of 4 x 4
    assert found[3] == pytest.approx(picture[:4, 4:8, 0].mean() / 255, abs=1e-6)
    assert found[-1] == pytest.approx(picture[44:, 44:, 2].mean() / 255, abs=1e-6)
    env.close()


def layers(env):
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env


@pytest.mark.parametrize("words", [{"task": "score"}, {"observation": "words"}])
def test_rows_of_an_agent_are_made_from_the_game_that_it_is_given(words):
    env = gym.make("polyathlon/NetHack-v0", **words)
    rows = copy_envs(env, 2)
    assert all(type(row.unwrapped) is type(env.unwrapped) and row.unwrapped is not env.unwrapped for row in rows)
    assert changes_since_made(env) == []
    for each in (env, *rows):
        each.close()
