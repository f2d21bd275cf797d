"""Training into a run folder: what it holds, what it refuses, and that an interrupted run changes nothing."""

from __future__ import annotations

import csv
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import polyathlon
from polyathlon.checkpoints import read_checkpoint
from polyathlon.cli import main
from polyathlon.envs.errors import UsageError
from polyathlon.evaluation import agent_policy, evaluate, load_run
from polyathlon.plotting import plot_runs
from polyathlon.run_folder import RunFolder
from polyathlon.training import Interrupted

SMALL = {"n_steps": 50, "batch_size": 25, "n_epochs": 2}
train = functools.partial(polyathlon.train, tuned=False)  # one row, and the numbers that a test gives
LAYERS = ["policy_kwargs.net_arch=[16]"]
RUNS = {  # words of a short run of each kind of agent, and how often it writes a checkpoint
    "ppo": (
        ["ppo", "Pendulum-v1", "--plain", "--agent", "n_steps=50", "batch_size=25", "n_epochs=2", "--steps", "2000"],
        "100",
    ),
    "sac": (
        ["sac", "Pendulum-v1", "--plain", "--agent", "learning_starts=100", "batch_size=32", *LAYERS, "--steps", "700"],
        "100",
    ),
    "language": (
        [
            "grpo",
            "polyathlon/Reasoning-v0",
            "--env",
            "task=chain_sum",
            "--agent",
            "num_prompts=2",
            "group_size=2",
            "--steps",
            "1500",
        ],
        "150",
    ),
}


def log(folder: Path) -> list[dict[str, str]]:
    """The records of a run without the clock's columns."""
    rows = list(csv.DictReader((folder / "progress.csv").open(newline="")))
    clock = {"time/fps", "time/time_elapsed"}
    return [{key: value for key, value in row.items() if key not in clock} for row in rows]


def assert_equal(left: Any, right: Any, path: str = "state") -> None:
    """Compare nested states bit for bit."""
    if isinstance(left, dict):
        assert left.keys() == right.keys(), path
        for key in left:
            assert_equal(left[key], right[key], f"{path}[{key!r}]")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), path
        for i, (a, b) in enumerate(zip(left, right)):
            assert_equal(a, b, f"{path}[{i}]")
    elif isinstance(left, torch.Tensor):
        assert torch.equal(torch.nan_to_num(left), torch.nan_to_num(right)), path
    elif hasattr(left, "dtype"):
        assert (left == right).all(), path
    else:
        assert left == right, path


def assert_same_run(left: Path, right: Path) -> None:
    """The logs and the whole training state of two finished runs are equal."""
    assert log(left) == log(right)
    a, b = (read_checkpoint(folder / "checkpoint.pt") for folder in (left, right))
    assert_equal(a["states"], b["states"])
    weights = [load_run(folder)[0].policy.state_dict() for folder in (left, right)]
    assert_equal(*[dict(w) for w in weights])


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-P", "-m", "polyathlon.cli", *map(str, words)]


def interrupt(out: Path, how: signal.Signals, *words: str) -> int:
    """Start a run in a process and send it a signal once its second checkpoint is written."""
    process = subprocess.Popen(command("train", *words, "--out", out), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 100
    while not (out / "checkpoint.previous.pt").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(how)
    process.communicate(timeout=60)
    return process.returncode


def test_a_run_folder_holds_everything(tmp_path):
    out = tmp_path / "run"
    agent = train("ppo", "Pendulum-v1", 400, seed=3, agent_kwargs=SMALL, out=out)
    assert agent.num_timesteps == 400
    config = json.loads((out / "config.json").read_text())
    assert (config["agent"], config["env"], config["seed"], config["agent_kwargs"]) == ("ppo", "Pendulum-v1", 3, SMALL)
    assert {"torch", "mujoco", "gymnasium", "polyathlon"} <= json.loads((out / "versions.json").read_text()).keys()
    assert [int(row["step"]) for row in log(out)] == list(range(50, 401, 50))
    assert any(path.name.startswith("events.out.tfevents") for path in out.iterdir())
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    loaded, env = load_run(out)
    original, repeated = (evaluate(env, agent_policy(a), 2, seed=5) for a in (agent, loaded))
    assert original.rewards == repeated.rewards and len(repeated.rewards) == 2


def words_of(kind: str) -> list[str]:
    words, every = RUNS[kind]
    return [*words, "--seed", "1", "--checkpoint-every", every]


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory):
    """A folder for the runs that nothing interrupts, one of each kind."""
    return tmp_path_factory.mktemp("whole")


@pytest.mark.parametrize(
    ("kind", "how"), [*((kind, signal.SIGKILL) for kind in RUNS), ("ppo", signal.SIGINT), ("language", signal.SIGINT)]
)
def test_an_interrupted_run_goes_on_to_the_same_numbers(tmp_path, whole_runs, kind, how):
    words, whole, broken = words_of(kind), whole_runs / kind, tmp_path / "broken"
    if not whole.exists():
        assert main(["train", *words, "--out", str(whole)]) == 0
    code = interrupt(broken, how, *words)
    assert code == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert not (broken / "agent.zip").exists()
    assert main(["train", *words, "--out", str(broken), "--resume"]) == 0
    assert_same_run(whole, broken)


def test_a_finished_run_goes_on_with_more_steps(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train("ppo", "Pendulum-v1", 400, agent_kwargs=SMALL, out=whole)
    train("ppo", "Pendulum-v1", 200, agent_kwargs=SMALL, out=broken)
    train("ppo", "Pendulum-v1", 400, agent_kwargs=SMALL, out=broken, resume=True)
    assert_same_run(whole, broken)
    assert RunFolder(broken).config().total_timesteps == 400


def test_resuming_without_a_checkpoint_starts_afresh(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for out in (whole, broken):
        train("ppo", "Pendulum-v1", 200, agent_kwargs=SMALL, out=out)
    for name in ("checkpoint.pt", "agent.zip"):
        (broken / name).unlink()
    train("ppo", "Pendulum-v1", 200, agent_kwargs=SMALL, out=broken, resume=True)
    assert_same_run(whole, broken)


def test_where_a_checkpoint_is_damaged_the_one_before_serves(tmp_path):
    out = tmp_path / "run"
    train("ppo", "Pendulum-v1", 200, agent_kwargs=SMALL, out=out, checkpoint_every=50)
    expected = log(out)
    path = out / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.warns(UserWarning, match="corrupted.*going on from"):
        train("ppo", "Pendulum-v1", 200, agent_kwargs=SMALL, out=out, resume=True)
    assert log(out) == expected and (out / "checkpoint.damaged.pt").exists()


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    train("ppo", "Pendulum-v1", 50, agent_kwargs=SMALL, out=tmp_path)
    with pytest.raises(UsageError, match="holds a run already: add --resume"):
        train("ppo", "Pendulum-v1", 50, agent_kwargs=SMALL, out=tmp_path)
    with pytest.raises(UsageError, match="seed was 0, now 1"):
        train("ppo", "Pendulum-v1", 50, seed=1, agent_kwargs=SMALL, out=tmp_path, resume=True)


def test_a_run_too_short_for_an_episode_has_no_curve_and_says_so(tmp_path):
    train("ppo", "Pendulum-v1", 50, agent_kwargs=SMALL, out=tmp_path)
    assert not (tmp_path / "curve.png").exists()
    with pytest.raises(UsageError, match="no episode has ended"):
        plot_runs([tmp_path], tmp_path / "curve.png")


def test_a_refused_call_leaves_no_folder(tmp_path):
    with pytest.raises(UsageError, match="unknown argument of PPO 'n_step'"):
        train("ppo", "Pendulum-v1", 50, agent_kwargs={"n_step": 5}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written: Not a directory"):
        train("ppo", "Pendulum-v1", 50, agent_kwargs=SMALL, out=tmp_path / "file" / "run")


@pytest.mark.parametrize("steps", [0, -5, 2.5, True])
def test_an_impossible_number_of_steps_is_refused(steps):
    with pytest.raises(UsageError, match="total_timesteps must be a positive integer"):
        train("ppo", "Pendulum-v1", steps)


def test_options_without_a_json_form_are_refused(tmp_path):
    options = {**SMALL, "learning_rate": lambda progress: 1e-3}
    with pytest.raises(UsageError, match="keeps the options as JSON"):
        train("ppo", "Pendulum-v1", 50, agent_kwargs=options, out=tmp_path / "run")
    assert train("ppo", "Pendulum-v1", 50, agent_kwargs=options).num_timesteps == 50


def test_resume_without_a_folder_is_refused():
    with pytest.raises(UsageError, match="resume needs the run folder"):
        train("ppo", "Pendulum-v1", 50, resume=True)


def test_warm_start_is_for_language_agents():
    with pytest.raises(UsageError, match="warm_start is for language agents"):
        train("ppo", "Pendulum-v1", 50, warm_start=3)


def test_control_c_from_python_stops_between_rollouts_and_is_saved(tmp_path, capsys):
    before = signal.getsignal(signal.SIGINT)
    calls = []

    def press(locals_: dict[str, Any], globals_: dict[str, Any]) -> bool:
        calls.append(1)
        if len(calls) == 75:
            assert not capsys.readouterr().err
            os.kill(os.getpid(), signal.SIGINT)
        if len(calls) == 76:  # at once, not when the rollout is over
            said = capsys.readouterr().err
            assert "stopping after this rollout and its update; Ctrl-C again stops at once" in said
            assert "the last checkpoint stands" in said
        return True

    with pytest.raises(Interrupted, match="at step 100; saved in"):
        train("ppo", "Pendulum-v1", 300, agent_kwargs=SMALL, out=tmp_path / "run", callback=press)
    assert signal.getsignal(signal.SIGINT) is before
    again = train("ppo", "Pendulum-v1", 300, agent_kwargs=SMALL, out=tmp_path / "run", resume=True)
    assert again.num_timesteps == 300


def test_a_second_control_c_stops_at_once(capsys):
    calls = []

    def press(locals_: dict[str, Any], globals_: dict[str, Any]) -> bool:
        calls.append(1)
        if len(calls) in (60, 65):
            os.kill(os.getpid(), signal.SIGINT)
        return True

    with pytest.raises(KeyboardInterrupt, match="at once; nothing is saved without out="):
        train("ppo", "Pendulum-v1", 300, agent_kwargs=SMALL, callback=press)
    assert len(calls) == 65 and "(nothing is saved without out=)" in capsys.readouterr().err
