"""Agents on the hub, without a hub: the package of an agent, its card, what is asked of the hub's client, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
import yaml

import polyathlon
from polyathlon.agents.parts import hub
from polyathlon.envs.errors import UsageError


class Walker:
    """What the hub needs of an agent."""

    num_timesteps = 12_345

    def save(self, path):
        Path(path).write_bytes(b"weights")


class Client:
    """The hub's client, which keeps what it was asked for."""

    asked: list = []

    def __init__(self, token=None):
        self.asked.append(("token", token))

    def create_repo(self, name, **words):
        self.asked.append((name, words))
        return f"https://hub/{name}"

    def upload_folder(self, **words):
        self.asked.append(("upload", words))


@pytest.fixture
def asked(monkeypatch):
    monkeypatch.setattr(Client, "asked", [])
    monkeypatch.setattr(huggingface_hub, "HfApi", Client)
    return Client.asked


@pytest.mark.parametrize("name", ["a/b", "A1/b-c.d_e", "0/0"])
def test_names_of_repositories(name):
    hub.check_repository(name)


@pytest.mark.parametrize("name", ["", "a", "a/b/c", "/b", "a/", "-a/b", "a/.b", "a b/c", "a/b\n", None])
def test_other_names_are_refused(name):
    with pytest.raises(UsageError) as raised:
        hub.check_repository(name)
    assert str(raised.value) == f"{str(name)!r} is no name of a repository; the hub takes user/name"


def test_a_folder_is_no_name(tmp_path):
    with pytest.raises(UsageError, match="is a file or folder of this machine, which load and load_run read"):
        hub.check_repository(str(tmp_path))


def test_the_package_of_an_agent(tmp_path):
    curve = tmp_path / "curve.png"
    curve.write_bytes(b"png")
    facts = {"task": "CartPole-v1", "curve": [1, 2], "files": [curve]}
    folder = hub.write_package(Walker(), tmp_path / "new" / "package", facts)
    assert folder == tmp_path / "new" / "package" and sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "agent.zip",
        "curve.png",
        "polyathlon.json",
    ]
    assert (folder / "agent.zip").read_bytes() == b"weights" and (folder / "curve.png").read_bytes() == b"png"
    assert json.loads((folder / "polyathlon.json").read_text()) == {
        "class": f"{__name__}:Walker",
        "polyathlon": polyathlon.__version__,
    }
    assert hub.class_path(folder / "agent.zip") == f"{__name__}:Walker"
    assert "files" in facts  # what was given stays as it was
    hub.write_package(Walker(), folder, {})  # once more, into the same folder


def test_the_card_says_what_the_hub_and_a_reader_look_for(tmp_path):
    _, head, body = hub._card(Walker(), {"task": "CartPole-v1", "curve": [1]}, tmp_path).split("---\n")
    assert yaml.safe_load(head) == {
        "library_name": "polyathlon",
        "pipeline_tag": "reinforcement-learning",
        "tags": ["polyathlon", "Walker"],
    }
    lines = body.splitlines()
    assert lines[:5] == [
        "",
        "# Walker",
        "",
        "- task: CartPole-v1",
        "- steps of training: 12,345",
    ]
    assert lines[5] == f"- made with: polyathlon {polyathlon.__version__}" and lines[6:8] == ["", "```python"]
    assert lines[-1] == "```" and body.endswith("```\n")
    assert lines[8:-1] == [
        "import polyathlon.agents",
        "",
        'agent = polyathlon.agents.Walker.load_from_hub("USER/NAME")',
    ]
    (tmp_path / "curve.png").touch()
    with_curve = hub._card(Walker(), {}, tmp_path)
    assert "\n\n![Mean return in training](curve.png)\n\n```python" in with_curve and "curve.png" not in body


def test_what_is_asked_of_the_hub(asked, tmp_path):
    address = hub.push(Walker(), "me/pole", tmp_path / "kept", {"task": "x"}, True, "secret", "first")
    assert address == "https://hub/me/pole"
    assert asked == [
        ("token", "secret"),
        ("me/pole", {"private": True, "exist_ok": True}),
        ("upload", {"repo_id": "me/pole", "folder_path": str(tmp_path / "kept"), "commit_message": "first"}),
    ]
    assert "- task: x" in (tmp_path / "kept" / "README.md").read_text().splitlines()
    with pytest.raises(UsageError, match="is no name of a repository"):
        hub.push(Walker(), "pole", tmp_path / "other", {}, False, None, "first")
    assert not (tmp_path / "other").exists()


def test_a_refused_push_keeps_the_content_and_says_why(asked, tmp_path, monkeypatch):
    def refuse(self, **words):
        raise OSError("  no room\nand more")

    monkeypatch.setattr(Client, "upload_folder", refuse)
    with pytest.raises(UsageError) as raised:
        hub.push(Walker(), "me/pole", tmp_path / "kept", {}, False, None, "first")
    kept = tmp_path / "kept"
    assert str(raised.value) == (
        f"me/pole could not be pushed (OSError: no room); everything is kept in {kept}: push again later, or run "
        f"hf upload me/pole {kept}"
    )
    assert (kept / "agent.zip").exists() and hub._reason(ValueError()) == "ValueError"


def test_a_revision_is_fetched_with_the_token(tmp_path, monkeypatch):
    seen = []

    def download(name, file, **words):
        seen.append((name, file, words))
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert hub.fetch("me/pole", "v1", "secret") == tmp_path / "agent.zip"
    words = {"revision": "v1", "token": "secret"}
    assert seen == [("me/pole", "polyathlon.json", words), ("me/pole", "agent.zip", words)]
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *a, **k: 1 / 0)
    with pytest.raises(
        UsageError, match=r"no agent could be loaded from me/pole \(ZeroDivisionError: division by zero\)"
    ):
        hub.fetch("me/pole", None, None)


@pytest.mark.parametrize("words", ["{", "[]", "{}"])
def test_words_that_say_no_class_are_refused(tmp_path, words):
    (tmp_path / "polyathlon.json").write_text(words)
    with pytest.raises(UsageError, match="polyathlon.json does not say which agent it is: "):
        hub.class_path(tmp_path / "agent.zip")
