"""Agents on the HuggingFace hub: pushed as a repository, and loaded from one."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyathlon.envs.errors import UsageError, require

AGENT, WORDS, CARD = "agent.zip", "polyathlon.json", "README.md"
KEPT = "to-push"
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def check_repository(name: str) -> None:
    """Refuse what is no name of a repository.

    Raises:
        UsageError: it is a folder here, or not of the form user/name.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        is_here = name != "" and Path(str(name)).exists()
        what = (
            "is a file or folder of this machine, which load and load_run read"
            if is_here
            else "is no name of a repository"
        )
        raise UsageError(f"{str(name)!r} {what}; the hub takes user/name")


def write_package(agent: Any, folder: Path, facts: Mapping[str, Any]) -> Path:
    """Write what a repository of an agent holds: the agent, which class it is, a card, and of a language model the model itself.

    Args:
        agent: the agent.
        folder: where to write.
        facts: for the card, such as "task"; "files" are further files to copy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    facts = dict(facts)
    for file in facts.pop("files", ()):
        shutil.copyfile(file, folder / Path(file).name)
    if hasattr(agent, "save_pretrained"):
        agent.save_pretrained(folder, card=facts)
    else:
        (folder / CARD).write_text(_card(agent, facts, folder), encoding="utf-8")
    agent.save(folder / AGENT)
    words = {
        "class": f"{type(agent).__module__}:{type(agent).__qualname__}",
        "polyathlon": importlib.metadata.version("polyathlon"),
    }
    (folder / WORDS).write_text(json.dumps(words, indent=1))
    return folder


def _card(agent: Any, facts: Mapping[str, Any], folder: Path) -> str:
    name = type(agent).__name__
    lines = {
        **facts,
        "steps of training": f"{agent.num_timesteps:,}",
        "made with": f"polyathlon {importlib.metadata.version('polyathlon')}",
    }
    lines.pop("curve", None)
    curve = ["", "![Mean return in training](curve.png)"] if (folder / "curve.png").exists() else []
    head = [
        "---",
        "library_name: polyathlon",
        "pipeline_tag: reinforcement-learning",
        "tags:",
        "- polyathlon",
        f"- {name}",
        "---",
    ]
    code = [
        "```python",
        "import polyathlon.agents",
        "",
        f'agent = polyathlon.agents.{name}.load_from_hub("USER/NAME")',
        "```",
    ]
    return "\n".join([*head, "", f"# {name}", "", *(f"- {k}: {v}" for k, v in lines.items()), *curve, "", *code, ""])


def push(
    agent: Any, name: str, folder: Path, facts: Mapping[str, Any], private: bool, token: str | None, message: str
) -> str:
    """Push an agent; see `Agent.push_to_hub`.

    Args:
        agent: the agent.
        name: user/name.
        folder: where the repository's content is written first, and stays where the hub is away.
        facts: for the card.
        private: of a new repository.
        token: of the hub; None takes the one that is stored.
        message: of the commit.

    Returns:
        The address of the repository.

    Raises:
        UsageError: the name is none, or the hub refuses or cannot be reached; the message says where the content was kept.
    """
    check_repository(name)
    hub: Any = require("huggingface_hub", "language")
    write_package(agent, folder, facts)
    try:
        api = hub.HfApi(token=token)
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=str(folder), commit_message=message)
    except Exception as error:  # the hub's client raises errors of its own, of its transport and of the system
        raise UsageError(
            f"{name} could not be pushed ({_reason(error)}); everything is kept in {folder}: push again later, or run "
            f"hf upload {name} {folder}"
        ) from error
    return str(address)


def fetch(name: str, revision: str | None, token: str | None) -> Path:
    """Bring the agent's file of a repository into the hub's cache.

    Returns:
        The file; what it was made with lies beside it.

    Raises:
        UsageError: the name is none, the hub has no such repository or cannot be reached, or it holds no agent.
    """
    check_repository(name)
    hub: Any = require("huggingface_hub", "language")
    try:
        paths = [Path(hub.hf_hub_download(name, file, revision=revision, token=token)) for file in (WORDS, AGENT)]
    except Exception as error:
        raise UsageError(f"no agent could be loaded from {name} ({_reason(error)}): push_to_hub writes one") from error
    return paths[1]


def class_path(file: Path) -> str:
    """Return the "module:Class" of the agent beside whose file the words of a repository lie.

    Raises:
        UsageError: they are damaged.
    """
    path = file.with_name(WORDS)
    try:
        return str(json.loads(path.read_text())["class"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} does not say which agent it is: {error}") from error


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
