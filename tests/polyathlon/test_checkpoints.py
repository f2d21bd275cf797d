"""Checkpoints and agent files: their format, two of them in a run folder, what is refused."""

from __future__ import annotations

import json
import zipfile
from typing import Any

import pytest
import torch

from polyathlon import checkpoints
from polyathlon.agents.on_policy.ppo import PPO
from polyathlon.checkpoints import FILE_FORMAT, CheckpointFiles, read_checkpoint, write_atomically
from polyathlon.envs.errors import UsageError

SMALL: dict[str, Any] = {"n_steps": 16, "batch_size": 8, "n_epochs": 1, "seed": 0, "device": "cpu"}


@pytest.fixture
def agent() -> PPO:
    return PPO("MlpPolicy", "Pendulum-v1", **SMALL)


def test_a_checkpoint_holds_the_agent_file_and_the_states_by_name(agent, tmp_path):
    content = read_checkpoint(agent.learn(16).checkpoint(tmp_path / "run.pt"))
    assert set(content) == {"format", "agent", "zip", "states"}
    assert (content["format"], content["agent"]) == (FILE_FORMAT, "PPO")
    assert set(content["states"]) == set(agent.checkpoint_states())
    assert content["states"]["counters"]["num_timesteps"] == 16 and content["states"]["counters"]["_iterations"] == 1
    assert not (tmp_path / "run.pt.partial").exists()


@pytest.mark.parametrize("number", [1, 99, "2"])
def test_a_checkpoint_of_another_format_is_refused_in_one_line(agent, number, tmp_path):
    path = agent.checkpoint(tmp_path / "run.pt")
    torch.save({**torch.load(path, weights_only=False), "format": number}, path)
    with pytest.raises(UsageError, match=rf"run.pt is a checkpoint of format {number!r}, .* reads format 2") as error:
        PPO.resume(path, "Pendulum-v1")
    assert "\n" not in str(error.value)


def test_another_file_of_torch_is_no_checkpoint(tmp_path):
    torch.save({"weights": 1}, tmp_path / "run.pt")
    with pytest.raises(UsageError, match=r"run.pt is not a checkpoint written by Agent.checkpoint"):
        read_checkpoint(tmp_path / "run.pt")


def with_format(path: Any, number: Any) -> None:
    """Write another format number into an agent file; None takes it out."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    settings = json.loads(parts["data"])
    assert settings.pop("file_format") == FILE_FORMAT
    if number is not None:
        settings["file_format"] = number
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**parts, "data": json.dumps(settings)}.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(("number", "words"), [(1, "of format 1"), (None, "without a format number")])
def test_an_agent_file_of_another_format_is_refused_in_one_line(agent, number, words, tmp_path):
    checkpoints.save_agent(agent, tmp_path / "agent.zip")
    assert PPO.load(tmp_path / "agent").n_steps == 16  # as SB3, without the ending
    with_format(tmp_path / "agent.zip", number)
    with pytest.raises(UsageError, match=f"agent is an agent file {words}, .* reads format 2") as error:
        PPO.load(tmp_path / "agent")
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=words):
        agent.set_parameters(str(tmp_path / "agent.zip"))


def test_what_is_no_agent_file_is_left_to_sb3(tmp_path):
    with pytest.raises(FileNotFoundError):
        PPO.load(tmp_path / "none")
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(ValueError, match="wasn't a zip-file"):
        PPO.load(tmp_path / "text.zip")


def test_a_run_folder_keeps_the_last_two(agent, tmp_path):
    files = CheckpointFiles(tmp_path)
    assert files.newest() is None
    for steps in (1, 2, 3):
        agent.num_timesteps = steps
        files.write(agent)
        assert files.newest() == tmp_path / "checkpoint.pt"
    found = [read_checkpoint(path)["states"]["counters"]["num_timesteps"] for path in (files.path, files.previous_path)]
    assert found == [3, 2]
    files.path.unlink()
    assert files.newest() == files.previous_path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.previous.pt"]


def test_a_crash_while_writing_leaves_both_as_they_were(agent, tmp_path, monkeypatch):
    files = CheckpointFiles(tmp_path)
    files.write(agent), files.write(agent)
    before = [path.read_bytes() for path in (files.path, files.previous_path)]

    def crash(content: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", crash)
    with pytest.raises(OSError, match="no space"):
        checkpoints.checkpoint(agent, files.path)
    assert [path.read_bytes() for path in (files.path, files.previous_path)] == before


def test_a_text_is_written_whole(tmp_path):
    write_atomically(tmp_path / "a.json", "one")
    write_atomically(tmp_path / "a.json", "two")
    assert (tmp_path / "a.json").read_text() == "two" and len(list(tmp_path.iterdir())) == 1
