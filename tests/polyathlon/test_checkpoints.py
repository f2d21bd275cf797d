"""Checkpoints and agent files: their format, two of them in a run folder, what is refused."""

from __future__ import annotations

import io
import json
import resource
import zipfile
from typing import Any

import pytest
import torch
from stable_baselines3.common.utils import LinearSchedule

from polyathlon import checkpoints
from polyathlon.agents.on_policy.ppo import PPO
from polyathlon.archives import DamagedFile, write_atomically
from polyathlon.checkpoints import FILE_FORMAT, CheckpointFiles, read_checkpoint
from polyathlon.envs.errors import UnknownArgument, UsageError

SMALL: dict[str, Any] = {"n_steps": 16, "batch_size": 8, "n_epochs": 1, "seed": 0, "device": "cpu"}


@pytest.fixture
def agent() -> PPO:
    return PPO("MlpPolicy", "Pendulum-v1", **SMALL)


def test_a_checkpoint_holds_the_agent_file_and_the_states_by_name(agent, tmp_path):
    content = read_checkpoint(agent.learn(16).checkpoint(tmp_path / "run.pt"))
    assert set(content) == {"format", "agent", "zip", "states", "run"} and content["run"] is None
    assert (content["format"], content["agent"]) == (FILE_FORMAT, "PPO")
    assert set(content["states"]) == set(agent.checkpoint_states())
    assert content["states"]["counters"]["num_timesteps"] == 16 and content["states"]["counters"]["_iterations"] == 1
    assert not (tmp_path / "run.pt.partial").exists()


def rewritten(path: Any, changes: dict[str, Any]) -> None:
    """Write an archive again with other parts, as a program would; every checksum of the zip fits."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**parts, **changes}.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("number", [1, 99, "2"])
def test_a_checkpoint_of_another_format_is_refused_in_one_line(agent, number, tmp_path):
    path = agent.checkpoint(tmp_path / "run.pt")
    manifest = json.loads(zipfile.ZipFile(path).read("manifest.json"))
    rewritten(path, {"manifest.json": json.dumps({**manifest, "format": number})})
    with pytest.raises(UsageError, match=rf"run.pt is a checkpoint of format {number!r}, .* reads format 3") as error:
        PPO.resume(path, "Pendulum-v1")
    assert "\n" not in str(error.value)


def test_a_part_that_was_exchanged_is_refused_by_its_checksum(agent, tmp_path):
    path, other = agent.checkpoint(tmp_path / "run.pt"), agent.learn(16).checkpoint(tmp_path / "other.pt")
    for part in ("agent.zip", "states.json", "states.pth"):
        whole = path.read_bytes()
        rewritten(path, {part: zipfile.ZipFile(other).read(part)})
        with pytest.raises(DamagedFile, match=rf"run.pt is corrupted \(its part {part} is not as it was written"):
            read_checkpoint(path)
        path.write_bytes(whole)
    read_checkpoint(path)


def test_a_flipped_bit_anywhere_is_refused_or_harmless(agent, tmp_path):
    path = agent.checkpoint(tmp_path / "run.pt")
    whole, zipped = path.read_bytes(), read_checkpoint(path)["zip"]
    same = 0
    for at in range(5, len(whole), len(whole) // 40):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            content = read_checkpoint(path)
        except UsageError as error:
            assert "run.pt" in str(error)
            continue
        same += 1
        assert content["zip"] == zipped  # another checkpoint would have another second in its entries
    assert same < 3


def test_a_damaged_newest_file_falls_back_to_the_one_before(agent, tmp_path):
    files = CheckpointFiles(tmp_path)
    for steps in (1, 2):
        agent.num_timesteps = steps
        files.write(agent)
    files.path.write_bytes(files.path.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=r"checkpoint.pt is .*corrupted.* going on from .*checkpoint.previous.pt"):
        path, content = files.read_newest()
    assert path == files.previous_path and content["states"]["counters"]["num_timesteps"] == 1
    files.set_damaged_apart(path)
    agent.num_timesteps = 3
    files.write(agent)  # takes no place of a whole one
    assert files.read_newest()[1]["states"]["counters"]["num_timesteps"] == 3
    assert read_checkpoint(files.previous_path)["states"]["counters"]["num_timesteps"] == 1
    assert files.damaged_path.exists()


def test_two_damaged_files_are_an_error(agent, tmp_path):
    files = CheckpointFiles(tmp_path)
    files.write(agent)
    files.path.write_bytes(b"")
    with pytest.raises(DamagedFile, match="no other one: start the run again"):
        files.read_newest()


class Touch:
    """Unpickled, it makes an empty file."""

    def __init__(self, path: Any) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


def test_reading_executes_no_code_unless_trusted(agent, tmp_path):
    agent.anything = Touch(tmp_path / "called")
    agent.save(tmp_path / "agent.zip")
    with pytest.raises(UsageError, match=r"agent.zip, anything: a .*Touch stands .* pickle.* trust=True"):
        PPO.load(tmp_path / "agent.zip", env="Pendulum-v1")
    path = agent.checkpoint(tmp_path / "run.pt")
    with pytest.raises(UsageError, match="run.pt, anything: .*pickle"):
        PPO.resume(path, "Pendulum-v1")
    assert PPO.load(tmp_path / "agent.zip", custom_objects={"anything": 3}).anything == 3
    assert not (tmp_path / "called").exists()
    PPO.load(tmp_path / "agent.zip", trust=True)
    assert (tmp_path / "called").exists()


def test_a_pickle_of_torch_is_not_read(agent, tmp_path):
    torch.save(Touch(tmp_path / "called"), tmp_path / "run.pt")
    with pytest.raises(UsageError, match="not a checkpoint"):
        PPO.resume(tmp_path / "run.pt", "Pendulum-v1")
    agent.save(tmp_path / "agent.zip")
    pickled = io.BytesIO()
    torch.save(Touch(tmp_path / "called"), pickled)
    rewritten(tmp_path / "agent.zip", {"policy.pth": pickled.getvalue()})
    with pytest.raises(DamagedFile, match="agent.zip is corrupted"):
        PPO.load(tmp_path / "agent.zip")
    assert not (tmp_path / "called").exists()


def test_a_class_is_not_taken_from_anywhere(agent, tmp_path):
    agent.save(tmp_path / "agent.zip")
    for name, words in (
        ("os:system", "no Module or Optimizer"),
        ("antigravity:x", "not imported"),
        ("torch.hub:load", "no Module"),
    ):
        data = json.loads(zipfile.ZipFile(tmp_path / "agent.zip").read("data"))
        data["policy_kwargs"] = {"activation_fn": {":": "class", "is": name}}
        rewritten(tmp_path / "agent.zip", {"data": json.dumps(data)})
        with pytest.raises(UsageError, match=words):
            PPO.load(tmp_path / "agent.zip", env="Pendulum-v1")


def test_one_s_own_policy_callables_and_spaces_need_trust(tmp_path):
    class Mine(PPO.policy_aliases["MlpPolicy"]):
        pass

    mine = PPO(Mine, "Pendulum-v1", **SMALL)
    mine.save(tmp_path / "policy.zip")
    with pytest.raises(UsageError, match="policy_class: a .*Mine stands"):
        PPO.load(tmp_path / "policy.zip")
    assert PPO.load(tmp_path / "policy.zip", custom_objects={"policy_class": Mine}).policy_class is Mine
    assert PPO.load(tmp_path / "policy.zip", trust=True).policy_class.__name__ == "Mine"
    scheduled = PPO("MlpPolicy", "Pendulum-v1", **SMALL, learning_rate=lambda progress: 0.1 * progress)
    scheduled.save(tmp_path / "rate.zip")
    with pytest.raises(UsageError, match="learning_rate: "):
        PPO.load(tmp_path / "rate.zip")
    assert PPO.load(tmp_path / "rate.zip", trust=True).lr_schedule(0.5) == 0.05


def test_what_is_standard_needs_no_trust(tmp_path):
    words: dict[str, Any] = {**SMALL, "policy_kwargs": {"activation_fn": torch.nn.ReLU, "net_arch": [8, 8]}}
    made = PPO("MlpPolicy", "Pendulum-v1", learning_rate=LinearSchedule(1e-3, 1e-4, 0.5), **words)
    made.save(tmp_path / "agent.zip")
    with zipfile.ZipFile(tmp_path / "agent.zip") as archive:
        data = json.loads(archive.read("data"))
        members = set(archive.namelist())
    assert {
        "data",
        "pytorch_variables.pth",
        "policy.pth",
        "training.pth",
        "_stable_baselines3_version",
    } <= members
    assert "pickled.pkl" not in members and "system_info.txt" in members
    assert data["learning_rate"] == {":": "schedule", "is": ["linear", 1e-3, 1e-4, 0.5]}
    assert data["policy_class"] == {":": "named", "is": "MlpPolicy"}
    loaded = PPO.load(tmp_path / "agent.zip", env="Pendulum-v1", device="cpu")
    assert loaded.observation_space == made.observation_space and loaded.policy_kwargs == words["policy_kwargs"]
    assert [loaded.lr_schedule(x) for x in (1, 0.75, 0)] == [made.lr_schedule(x) for x in (1, 0.75, 0)]
    assert all(torch.equal(a, b) for a, b in zip(loaded.policy.parameters(), made.policy.parameters()))


def test_a_full_disk_leaves_what_was_there(agent, tmp_path):
    agent.save(tmp_path / "agent.zip")
    path = agent.checkpoint(tmp_path / "run.pt")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (0, 100, len(before["agent.zip"]) // 2, len(before["run.pt"]) - 200):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        try:
            with pytest.raises(OSError, match="too large"):
                agent.checkpoint(path)
            if room < len(before["agent.zip"]):
                with pytest.raises(OSError, match="too large"):
                    agent.save(tmp_path / "agent.zip")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    agent.checkpoint(path)


def test_an_agent_of_another_environment_is_refused(agent, tmp_path):
    agent.save(tmp_path / "agent.zip")
    with pytest.raises(UsageError, match="agent.zip is of an agent for another environment: its observation_space"):
        PPO.load(tmp_path / "agent.zip", env="MountainCarContinuous-v0")
    path = agent.checkpoint(tmp_path / "run.pt")
    with pytest.raises(UsageError, match="run.pt is of an agent for another environment"):
        PPO.resume(path, "MountainCarContinuous-v0")


def test_a_file_of_sb3_is_refused_in_one_line(tmp_path):
    import stable_baselines3

    stable_baselines3.PPO("MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8).save(tmp_path / "sb3.zip")
    with pytest.raises(UsageError, match="sb3.zip is a file of Stable-Baselines3") as error:
        PPO.load(tmp_path / "sb3.zip")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"gamma": float("nan")}, "gamma must lie between 0 and 1, got nan"),
        ({"learning_rate": -1}, "learning_rate must be a number and must not be negative"),
        ({"n_steps": 32, "batch_size": 0}, "batch_size must be a positive integer"),
        ({"clip_range": "small"}, "clip_range must be a number"),
    ],
)
def test_values_that_the_constructor_refuses_are_refused_by_load(agent, tmp_path, words, message):
    agent.save(tmp_path / "agent")
    with pytest.raises(UsageError, match=message):
        PPO.load(tmp_path / "agent", **words)


def test_values_that_the_constructor_takes_are_set_by_load(tmp_path):
    from polyathlon.agents import SAC

    words = {"learning_starts": 4, "batch_size": 4, "device": "cpu", "policy_kwargs": {"net_arch": [4]}}
    SAC("MlpPolicy", "Pendulum-v1", **words).save(tmp_path / "agent")
    changed = {"gamma": 0.9, "batch_size": 8, "gradient_steps": -1, "train_freq": 2, "seed": 3, "tau": 0.1}
    agent = SAC.load(tmp_path / "agent", env="Pendulum-v1", learning_rate=lambda left: 1e-3 * left, **changed)
    assert {name: getattr(agent, name) for name in changed} == changed
    assert agent.learn(12).num_timesteps == 12


def test_an_unknown_word_of_load_is_refused(agent, tmp_path):
    agent.save(tmp_path / "agent.zip")
    assert PPO.load(tmp_path / "agent.zip", n_epochs=3).n_epochs == 3
    with pytest.raises(UnknownArgument, match="n_epoch'.*n_epochs"):
        PPO.load(tmp_path / "agent.zip", n_epoch=3)


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
    with pytest.raises(UsageError, match=f"agent is an agent file {words}, .* reads format 3") as error:
        PPO.load(tmp_path / "agent")
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=words):
        agent.set_parameters(str(tmp_path / "agent.zip"))


def test_what_is_no_agent_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        PPO.load(tmp_path / "none")
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(DamagedFile, match="text.zip is corrupted"):
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


def test_a_text_is_written_whole(tmp_path):
    write_atomically(tmp_path / "a.json", "one")
    write_atomically(tmp_path / "a.json", "two")
    assert (tmp_path / "a.json").read_text() == "two" and len(list(tmp_path.iterdir())) == 1


def test_a_value_that_the_constructor_takes_beside_others_alone_is_left_to_load(tmp_path, monkeypatch):
    """`offline_ratio` is refused by a constructor that gets no dataset, in the file as in the change."""
    from polyathlon.agents import RLPD
    from polyathlon.datasets import record

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    name = "polyathlon/pendulum/changed-v0"
    record("random", "Pendulum-v1", episodes=1, dataset_id=name, seed=0)
    words = {"batch_size": 4, "device": "cpu", "policy_kwargs": {"net_arch": [4]}}
    RLPD("MlpPolicy", "Pendulum-v1", dataset=name, **words).save(tmp_path / "agent")
    assert RLPD.load(tmp_path / "agent", offline_ratio=0.25).offline_ratio == 0.25
