"""Advice of the package's own functions, a row each: what is refused, what the error says, and what it advises, which then works."""

from __future__ import annotations

import errno
import fcntl
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from stable_baselines3 import A2C

import polyathlon
from polyathlon import serving
from polyathlon.agents import PPO
from polyathlon.comparison_data import Lengths, SharedData, refuse_actors, shared_data
from polyathlon.comparison_runs import Setting
from polyathlon.envs.errors import UsageError
from polyathlon.folder_lock import FolderLock
from polyathlon.record_triples import policy_rows
from polyathlon.records import _written
from polyathlon.run_data import with_data
from polyathlon.run_folder import RunFolder
from polyathlon.tuning import _read_search

Row = tuple[Callable[[Path], Any], str, Callable[[Path], Any]]
PROMPTS, CHAIN = "polyathlon/Prompts-v0", "polyathlon/Reasoning-v0"
NO_LENGTHS = Lengths(None, None)
SMALL = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "policy_kwargs": {"net_arch": [8]}}


def data(folder: Path) -> str:
    path = folder / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"p{i}", "completion": "a", "reference": "a"}) + "\n" for i in range(8))
    )
    return str(path)


def shared(names: list[str], env: str, source: Any, **words: Any) -> SharedData | None:
    return shared_data(names, env, source, words.get("holdout"), words.get("reward"), {})


def setting(names: list[str], given: Lengths = NO_LENGTHS, steps: int | None = None) -> Setting:
    from polyathlon.comparing import _setting

    return _setting(names, CHAIN, given, steps, False, None, None, None, None, {"agent_kwargs": {}})


def words_of(agent: str, holdout: float | None, source: Any = None) -> Any:
    return with_data(agent, "Pendulum-v1", {}, {}, source, holdout, None)


ROWS: dict[str, Row] = {
    "run folders as a list": (
        lambda here: polyathlon.compare("runs/a"),
        r"give the run folders as a list, got 'runs/a'",
        lambda here: refused_later(
            lambda: polyathlon.compare([str(here / "a"), str(here / "b")]), "there is no run in"
        ),
    ),
    "a name twice": (
        lambda here: polyathlon.compare(["grpo", "grpo"], CHAIN),
        "is given twice; compare it with another one",
        lambda here: refused_later(lambda: polyathlon.compare(["grpo", "rloo"], CHAIN, seeds=1), "seeds must be"),
    ),
    "completions beside steps": (
        lambda here: setting(["grpo", "rloo"], Lengths(8, None), 8),
        r"give steps \(--steps\) to all",
        lambda here: setting(["grpo", "rloo"], steps=8),
    ),
    "records beside steps": (
        lambda here: setting(["grpo", "rloo"], Lengths(None, 8), 8),
        r"leave records \(--records\) out",
        lambda here: setting(["grpo", "rloo"], steps=8),
    ),
    "a share without data": (
        lambda here: shared(["dpo"], PROMPTS, None, holdout=0.5),
        r"is a share of data: give data= \(--data\)",
        lambda here: shared(["sft"], PROMPTS, data(here), holdout=0.5),
    ),
    "a judge without a name": (
        lambda here: shared(["grpo"], PROMPTS, data(here), reward=len),
        "give reward= as 'module:function' or a reward model's folder",
        lambda here: shared(["grpo"], PROMPTS, data(here), reward="builtins:len"),
    ),
    "nothing held out": (
        lambda here: shared(["grpo"], PROMPTS, data(here), holdout=0.0),
        "holds none out: give a larger --holdout",
        lambda here: shared(["grpo"], PROMPTS, data(here), holdout=0.5),
    ),
    "agents that answer no prompts": (
        lambda here: refuse_actors(["sac"]),
        "give the environment that it acts in, --on ENV",
        lambda here: refused_later(lambda: polyathlon.compare(["sac", "td3"], "Pendulum-v1", seeds=1), "seeds must be"),
    ),
    "a share of a run without data": (
        lambda here: words_of("sac", 0.5),
        r"holdout=0.5 is a share of data: give data= \(--data\)",
        lambda here: with_data("sft", PROMPTS, {}, {}, data(here), 0.5, None),
    ),
    "words of records for segments": (
        lambda here: words_of("cpl", 0.5, "x.npz"),
        "learns from segments: leave holdout out",
        lambda here: words_of("cpl", None, "x.npz"),
    ),
    "answers of policies": (
        lambda here: policy_rows({"a": lambda asked: ["x"]}, ["p", "q"]),
        "gave 1 answers to 4 prompts: give one to each",
        lambda here: policy_rows({"a": lambda asked: ["x"] * len(asked)}, ["p", "q"]),
    ),
    "the ending of records": (
        lambda here: _written(here / "a.json", iter([]), False),
        "give a path that ends in .jsonl",
        lambda here: _written(here / "a.jsonl", iter([{"prompt": "p"}]), False),
    ),
    "forms of another's agent": (
        lambda here: polyathlon.adapt("CartPole-v1", A2C),
        "has no action_forms: put the wrappers on by hand",
        lambda here: A2C("MlpPolicy", gym.wrappers.FlattenObservation(gym.make("CartPole-v1")), device="cpu"),
    ),
}


def refused_later(call: Callable[[], Any], said: str) -> None:
    """What was advised is taken, and something else is refused, before anything trains."""
    with pytest.raises(UsageError, match=said):
        call()


@pytest.mark.parametrize("name", ROWS)
def test_what_an_error_advises_works(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong, said, right = ROWS[name]
    with pytest.raises(UsageError, match=said):
        wrong(tmp_path)
    right(tmp_path)


def test_an_agent_s_file_of_another_format_is_saved_again(tmp_path):
    agent = PPO("MlpPolicy", "CartPole-v1", device="cpu", **SMALL)
    now, agent.file_format = agent.file_format, -1
    agent.save(tmp_path / "a")
    agent.file_format = now
    with pytest.raises(UsageError, match="save the agent again"):
        PPO.load(tmp_path / "a")
    agent.save(tmp_path / "a")
    PPO.load(tmp_path / "a")


def test_a_folder_that_cannot_be_locked_is_told(tmp_path, monkeypatch):
    def none(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.warns(UserWarning, match="see that one run alone writes there"):
        FolderLock(tmp_path).acquire()
    monkeypatch.undo()
    lock = FolderLock(tmp_path)
    lock.acquire()
    with pytest.raises(UsageError, match="a run is going on .*: wait for its end, or choose another --out"):
        FolderLock(tmp_path).acquire()
    lock.release()
    FolderLock(tmp_path).acquire()


def test_a_run_that_logged_nothing_trains_longer(tmp_path):
    run = tmp_path / "run"
    polyathlon.train("ppo", "CartPole-v1", 8, agent_kwargs=SMALL, tuned=False, out=run, picture=False)
    folder = RunFolder(run)
    folder.progress_path.write_text("")
    with pytest.raises(UsageError, match="train longer, or log more often"):
        folder.progress()
    polyathlon.train("ppo", "CartPole-v1", 16, agent_kwargs=SMALL, tuned=False, out=run, resume=True, picture=False)
    assert folder.progress()


def test_a_damaged_search_is_removed_or_begun_elsewhere(tmp_path):
    path = tmp_path / "tune.json"
    path.write_text("[]")
    with pytest.raises(UsageError, match="choose another --out, or remove its folder"):
        _read_search(path)
    path.write_text("{}")
    assert _read_search(path) == {}


@pytest.mark.parametrize("lacks", ["a package", "the program"])
def test_what_serving_lacks_is_installed_by_the_extra_that_has_it(lacks, monkeypatch, tmp_path):
    import tomllib

    found = importlib.util.find_spec
    monkeypatch.setattr(
        serving.importlib.util, "find_spec", lambda name: None if lacks == "a package" else found("json")
    )
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(serving.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ImportError, match=r"pip install 'polyathlon\[serve\]'"):
        serving.serve_command(tmp_path, "127.0.0.1", 8000, "cpu")
    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    wanted = " ".join(extras["serve"])
    assert "transformers[serving]" in wanted or all(name in wanted for name in serving.NEEDED)
