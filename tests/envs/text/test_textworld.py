"""TextWorld as a language task; these tests run where TextWorld is installed (scripts/test has an environment for it)."""

from __future__ import annotations

import importlib.util
import pickle

import gymnasium as gym
import pytest

import polyathlon
from polyathlon.envs.errors import UsageError

HAS_TEXTWORLD = importlib.util.find_spec("textworld") is not None
needs_textworld = pytest.mark.skipif(not HAS_TEXTWORLD, reason="TextWorld is not installed")
ID = "polyathlon/TextWorld-v0"


@pytest.mark.skipif(HAS_TEXTWORLD, reason="TextWorld is installed")
def test_without_textworld_the_extra_is_named():
    with pytest.raises(ImportError, match=r"polyathlon\[textworld\]"):
        gym.make(ID)


def test_games_beyond_the_last_seed_are_refused(monkeypatch, tmp_path):
    import polyathlon.envs.text.textworld as module

    monkeypatch.setattr(module, "require", lambda *given: None)
    monkeypatch.setattr(module, "checked_settings", lambda *given: {})
    words = {"folder": tmp_path, "build": "reset"}
    with pytest.raises(UsageError, match="beyond the last seed, 2147483647"):
        module.TextWorld(first=2**31 - 4, size=5, **words)
    assert module.TextWorld(first=2**31 - 4, size=4, **words).first == 2**31 - 4


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return gym.make(ID, size=2, settings={"level": 2}, folder=str(tmp_path_factory.mktemp("games"))).unwrapped


@needs_textworld
def test_a_walkthrough_wins_and_its_rewards_sum_to_one(task):
    for seed in (1, 2):
        task.reset(options={"task": seed})
        total, terminated, info = 0.0, False, {}
        for command in task.walkthrough(seed):
            assert command in task.current_candidates()
            _, reward, terminated, truncated, info = task.step(command)
            total += reward
        assert terminated and not truncated and total == pytest.approx(1.0) and info["won"]
        assert info["verdict"]["correct"] and info["score"] == info["max_score"]


@needs_textworld
def test_a_command_that_does_nothing_costs_a_turn_and_changes_nothing(task):
    _, _ = task.reset(options={"task": 1})
    before = task.current_candidates()
    for text in ("fly", "", "\x1b[2J", "x" * 100_000):
        said, reward, terminated, truncated, info = task.step(text)
        assert reward == 0 and not terminated and info["verdict"]["invalid"] and "Nothing happens" in said
    assert task.current_candidates() == before
    first = task.walkthrough(1)[0]
    assert not task.step(f"  {first.upper()}. ")[4]["verdict"]["invalid"]


@needs_textworld
def test_the_same_seed_tells_the_same_story_and_time_is_up(task):
    told = []
    for _ in range(2):
        text, _ = task.reset(seed=4)
        lines = [text]
        for t in range(50):
            text, _, terminated, truncated, _ = task.step("look")
            lines.append(text)
            assert not terminated and truncated == (t == 49)
        told.append(lines)
    assert told[0] == told[1]


@needs_textworld
def test_a_state_is_entered_again_and_games_are_built_once(task, monkeypatch):
    task.reset(options={"task": 2})
    task.step(task.walkthrough(2)[0])
    copy = pickle.loads(pickle.dumps(task))
    assert copy.current_candidates() == task.current_candidates()
    monkeypatch.setattr(type(task.games), "_build_elsewhere", lambda self, seed: pytest.fail("built again"))
    task.reset(options={"task": 1})


@needs_textworld
@pytest.mark.parametrize("agent", ["ppo", "sac", "language"])
def test_agents_of_every_kind_play(task, agent):
    from polyathlon.envs.text.textworld import TextWorld

    env = TextWorld(size=2, settings={"level": 2}, folder=task.games.folder.parent, tells_all=False)
    options = {"max_length": 1024} if agent == "language" else {}
    adapted = polyathlon.adapt(env, agent, **options)
    settings = {"n_steps": 16, "batch_size": 16} if agent == "ppo" else {}
    assert polyathlon.make_agent(agent, adapted, seed=0, device="cpu", **settings).learn(16).num_timesteps >= 16


@needs_textworld
def test_bad_input_is_refused(tmp_path):
    with pytest.raises(UsageError, match="coin_collector"):
        gym.make(ID, task="coin_colector")
    with pytest.raises(UsageError, match="level"):
        gym.make(ID, settings={"levl": 3})
    with pytest.raises(UsageError, match="size"):
        gym.make(ID, size=0)
    with pytest.raises(UsageError, match="build"):
        gym.make(ID, build="later")
    with pytest.raises(UsageError, match="seed"):
        gym.make(ID, build="reset", folder=str(tmp_path)).reset(options={"task": -1})
    with pytest.raises(UsageError, match="could not be built"):
        gym.make(ID, settings={"level": 10_000}, size=1, folder=str(tmp_path))
