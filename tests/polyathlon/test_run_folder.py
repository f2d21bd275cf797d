"""The run folder against faults: damaged and foreign files, a full disk, two processes."""

from __future__ import annotations

import csv
import os
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import polyathlon
from polyathlon.agents import SAC
from polyathlon.envs.errors import UsageError
from polyathlon.folder_lock import FolderLock
from polyathlon.run_folder import RunFolder
from polyathlon.run_logger import ProgressCSV

WORDS: dict[str, Any] = {"tuned": False, "checkpoint_every": 50, "device": "cpu"}  # of a run with a folder
SMALL = {"n_steps": 50, "batch_size": 25, "n_epochs": 1}


def train(steps: int, out: Path | None = None, env: str = "Pendulum-v1", **words: Any) -> Any:
    words = {**WORDS, "agent_kwargs": SMALL, **words}
    if out is None:
        del words["checkpoint_every"]
    return polyathlon.train("ppo", env, steps, out=out, **words)


def weights(agent: Any) -> list[float]:
    return [float(p.detach().double().sum()) for p in agent.policy.parameters()]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("runs") / "base"
    train(150, folder)
    return folder


@pytest.fixture
def run(base, tmp_path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "run"))


def test_a_damaged_checkpoint_falls_back_and_ends_with_the_same_numbers(run):
    content = (run / "checkpoint.pt").read_bytes()
    (run / "checkpoint.pt").write_bytes(content[:1000] + b"?" + content[1001:])
    with pytest.warns(UserWarning, match=r"checkpoint.pt is corrupted.* going on from .*previous"):
        resumed = train(250, run, resume=True)
    assert weights(resumed) == weights(train(250))
    assert (run / "checkpoint.damaged.pt").exists()


def test_a_checkpoint_of_another_run_is_refused(run, tmp_path):
    for words, difference in (
        ({"env": "MountainCarContinuous-v0"}, "env 'MountainCarContinuous-v0', here 'Pendulum-v1'"),
        ({"agent_kwargs": {**SMALL, "policy_kwargs": {"net_arch": [8]}}}, "agent_kwargs .*net_arch"),
        ({"seed": 3}, "seed 3, here 0"),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        train(50, folder, **words)
        shutil.copy(folder / "checkpoint.pt", run / "checkpoint.pt")
        with pytest.raises(UsageError, match=rf"checkpoint.pt is the checkpoint of another run .*: {difference}"):
            train(250, run, resume=True)


def test_the_last_checkpoint_is_kept_when_a_loss_is_nan(tmp_path):
    words = {"learning_starts": 100, "batch_size": 8, "train_freq": 8, "policy_kwargs": {"net_arch": [8]}}
    words |= {"gradient_steps": 8, "learning_rate": 1e30}
    with pytest.raises(
        FloatingPointError, match=r"_loss is (NaN|infinite) at gradient step [1-8]; lower the learning rate"
    ):
        polyathlon.train("sac", "Pendulum-v1", 200, out=tmp_path / "run", agent_kwargs=words, **WORDS)
    kept = SAC.resume(tmp_path / "run" / "checkpoint.pt", gym.make("Pendulum-v1"), device="cpu")
    assert kept.num_timesteps == 56 and np.isfinite(weights(kept)).all()  # the first rollout's start after 50 steps


def test_means_between_two_records_of_the_log_go_on(tmp_path):
    """BQNCO logs the mean of ten updates; it is stopped between two records, and begins again at a checkpoint between two."""
    inner = {"batch_size": 4, "num_labels": 8, "policy_kwargs": {"width": 8, "num_layers": 1, "num_heads": 1}}
    words = {"env_kwargs": {"num_nodes": 5}, "agent_kwargs": inner, "picture": False, **WORDS}

    def stop(names: dict[str, Any], _: dict[str, Any]) -> bool:
        if names["self"].num_timesteps >= 100:
            raise RuntimeError("killed")
        return True

    polyathlon.train("bqnco", "polyathlon/TSP-v0", 160, out=tmp_path / "whole", **words)
    with pytest.raises(RuntimeError, match="killed"):
        polyathlon.train("bqnco", "polyathlon/TSP-v0", 160, out=tmp_path / "broken", callback=stop, **words)
    polyathlon.train("bqnco", "polyathlon/TSP-v0", 160, out=tmp_path / "broken", resume=True, **words)
    logs = []
    for name in ("whole", "broken"):
        rows = csv.DictReader((tmp_path / name / "progress.csv").open(newline=""))
        logs.append([{k: v for k, v in row.items() if k not in ("time/fps", "time/time_elapsed")} for row in rows])
    assert logs[0] == logs[1] and len(logs[0]) == 4 and all("train/loss" in row for row in logs[0])


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe"])
@pytest.mark.parametrize("name", ["versions.json", "checkpoint.logs.json"])
def test_side_files_that_are_damaged_are_done_without(run, name, content):
    rows = len((run / "progress.csv").read_text().splitlines())
    (run / name).write_bytes(content)
    with pytest.warns(UserWarning, match=f"{name} is damaged"):
        train(200, run, resume=True)
    assert len((run / "progress.csv").read_text().splitlines()) == rows + 1


def test_entries_of_the_log_that_are_none_are_done_without(run):
    (run / "checkpoint.logs.json").write_text('{"x": 1}')
    with pytest.warns(UserWarning, match="checkpoint.logs.json is damaged"):
        train(200, run, resume=True)


def test_a_damaged_log_or_config_is_refused_by_name(run):
    whole = (run / "config.json").read_text()
    for content in (
        "[]",
        "{",
        whole.replace('"seed": 0', '"seed": "x"'),
        whole.replace('"env": "Pendulum-v1"', '"env": 3'),
    ):
        (run / "config.json").write_text(content)
        with pytest.raises(UsageError, match="config.json is damaged"):
            train(200, run, resume=True)
    (run / "config.json").write_text(whole)
    (run / "progress.csv").write_bytes(b"\xff\xfe\x00\n1\n")
    with pytest.raises(UsageError, match=r"progress.csv is damaged .*: move it away"):
        train(200, run, resume=True)


def test_a_second_run_in_the_folder_is_refused_and_the_first_goes_on(base, tmp_path):
    seen: list[str] = []

    def meanwhile(found: Any, _: Any) -> bool:
        if not seen:
            with pytest.raises(UsageError, match="a run is going on in .*run: wait for its end") as error:
                train(100, tmp_path / "run", resume=True)
            seen.append(str(error.value))
        return True

    agent = train(150, tmp_path / "run", callback=meanwhile)
    assert seen and agent.num_timesteps == 150
    train(200, tmp_path / "run", resume=True)  # the lock is gone with the run


def test_a_dead_process_holds_no_lock_and_its_children_neither(tmp_path):
    script = f"""
import os, sys, time
from pathlib import Path
from polyathlon.folder_lock import FolderLock
FolderLock(Path({str(tmp_path)!r})).acquire()
child = os.fork()
if child == 0:
    print(os.getpid(), flush=True)  # it runs, so what it inherited is given up
    time.sleep(60)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        with pytest.raises(UsageError, match="going on"):
            FolderLock(tmp_path).acquire()
        process.kill()
        process.wait()
        lock = FolderLock(tmp_path)
        lock.acquire()
        with pytest.raises(UsageError, match="going on"):
            FolderLock(tmp_path).acquire()
        lock.release()
        FolderLock(tmp_path).acquire()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_full_disk_is_one_warning_and_the_run_goes_on(tmp_path):
    """Between steps 60 and 140 no file may grow beyond 10 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    folder = tmp_path / "run"

    def fill(found: Any, _: Any) -> bool:
        step = found["self"].num_timesteps
        if step in (60, 140):
            resource.setrlimit(resource.RLIMIT_FSIZE, (10 if step == 60 else limits[0], limits[1]))
        return True

    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            agent = train(250, folder, callback=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    words = [str(each.message) for each in seen if "cannot be written" in str(each.message)]
    assert any("the checkpoint in" in text and "the run goes on and tries again" in text for text in words), words
    assert not list(folder.glob("*.partial"))
    assert [record["step"] for record in RunFolder(folder).progress()] == [50, 100, 150, 200, 250]
    assert weights(agent) == weights(train(250))
    assert weights(train(300, folder, resume=True)) == weights(train(300))


def test_a_full_disk_at_the_end_is_one_line(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(found: Any, _: Any) -> bool:
        if found["self"].num_timesteps == 140:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
        return True

    try:
        with pytest.raises(UsageError, match=r"cannot be written .*; the one before is whole: .* --resume") as error:
            train(150, tmp_path / "run", callback=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value) and not list((tmp_path / "run").glob("*.partial"))
    assert weights(train(150, tmp_path / "run", resume=True)) == weights(train(150))


def test_the_log_is_closed_after_it_was_read(tmp_path):
    log = ProgressCSV(RunFolder(tmp_path).progress_path)
    log.write({"a": 1.0}, {"a": ()}, 1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ResourceWarning)
        ProgressCSV(log.path).write({"b": 1.0}, {"b": ()}, 2)
        assert len(RunFolder(tmp_path).progress()) == 2
    assert not [each for each in said if issubclass(each.category, ResourceWarning)]


def test_records_that_wait_for_room_are_written_whole(tmp_path):
    log = ProgressCSV(tmp_path / "progress.csv")
    log.write({"a": 1.0}, {"a": ()}, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "progress.csv").stat().st_size + 2, limits[1]))
    try:
        with pytest.warns(UserWarning, match="progress.csv cannot be written .*wait"):
            log.write({"a": 2.0}, {"a": ()}, 2)
        log.write({"a": 3.0, "b": 4.0}, {"a": (), "b": ()}, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "progress.csv").read_text().split() == ["step,a", "1,1.0"]
    log.write({"a": 5.0}, {"a": ()}, 4)
    assert (tmp_path / "progress.csv").read_text().split() == ["step,a,b", "1,1.0,", "2,2.0,", "3,3.0,4.0", "4,5.0,"]
