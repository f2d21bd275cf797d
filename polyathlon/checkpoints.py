"""Checkpoints and agent files: the one place that writes and reads them."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from stable_baselines3.common.save_util import open_path

from polyathlon.envs.errors import UsageError

if TYPE_CHECKING:
    from polyathlon.agents.parts.saved_states import SavedStates

FILE_FORMAT = 2  # of checkpoints and of agent files; 2: `{name: state_dict}` of what the agent registered


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that a crash leaves the old one or the new one, whole."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


# ---------------------------------------------------------------------------------------------------- agent files


def save_agent(agent: SavedStates, path: str | Path | io.BufferedIOBase) -> None:
    """Write what acting needs, SB3's zip: the settings, and every state that `register_state` put into `save`.

    Args:
        agent: the agent.
        path: the file; ".zip" is added where it has no ending.
    """
    agent.save(path)


def refuse_other_agent_file(path: str | Path | io.BufferedIOBase) -> None:
    """Refuse an agent file of another format; what is no agent file at all is left to SB3's own errors.

    Raises:
        UsageError: the file says another format number, or none.
    """
    file = open_path(path, "r", suffix="zip")
    try:
        if not zipfile.is_zipfile(file):
            return
        with zipfile.ZipFile(file) as archive:
            settings = json.loads(archive.read("data")) if "data" in archive.namelist() else {}
    finally:
        if isinstance(path, str | Path):
            file.close()
        else:
            file.seek(0)
    if (found := settings.get("file_format")) != FILE_FORMAT:
        name = path if isinstance(path, str | Path) else "this file"
        raise UsageError(f"{name} is {_format(found, 'an agent file')}: save the agent again")


def _format(found: Any, kind: str) -> str:
    number = "without a format number" if found is None else f"of format {found!r}"
    return f"{kind} {number}, but this version of polyathlon reads format {FILE_FORMAT}"


# ---------------------------------------------------------------------------------------------------- checkpoints


def checkpoint(agent: SavedStates, path: str | Path) -> Path:
    """Write the agent with everything that a bit-equal resume needs into one file, atomically.

    A crash while writing leaves the previous file as it was.

    Args:
        agent: the agent.
        path: the file to write.

    Returns:
        The path written.
    """
    path = Path(path)
    archive = io.BytesIO()
    save_agent(agent, archive)
    content = {
        "format": FILE_FORMAT,
        "agent": type(agent).__name__,
        "zip": archive.getvalue(),
        "states": agent.checkpoint_states(),
    }
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return path


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read and check a file written by `checkpoint`.

    Returns:
        "format", "agent" (name of the class), "zip" (the agent file, bytes) and "states", {name: state_dict} of what stands
        in checkpoints alone.

    Raises:
        UsageError: the file is missing, corrupted or of another format.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=False)
    except FileNotFoundError as error:
        raise UsageError(f"there is no checkpoint {path}") from error
    except Exception as error:  # a damaged archive fails in many ways, all of which mean the same to the user
        raise UsageError(
            f"the checkpoint {path} is corrupted ({type(error).__name__}: {error}); delete it to resume from an older one"
        ) from error
    if not isinstance(content, dict) or "format" not in content:
        raise UsageError(f"{path} is not a checkpoint written by Agent.checkpoint")
    if content["format"] != FILE_FORMAT:
        raise UsageError(f"{path} is {_format(content['format'], 'a checkpoint')}: start the run again")
    return content


class CheckpointFiles:
    """The checkpoint of a run and the one before it; a crash at any moment leaves one of them whole.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "checkpoint.pt"
        self.previous_path = folder / "checkpoint.previous.pt"

    def newest(self) -> Path | None:
        """Return the file to go on from; None before the first checkpoint."""
        return next((p for p in (self.path, self.previous_path) if p.exists()), None)

    def write(self, agent: SavedStates) -> None:
        """Write a checkpoint and keep the one before.

        Raises:
            OSError: the folder cannot be written; what was there is as it was.
        """
        fresh = checkpoint(agent, self.folder / "checkpoint.new.pt")
        if self.path.exists():
            os.replace(self.path, self.previous_path)
        os.replace(fresh, self.path)
