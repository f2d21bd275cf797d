"""Checkpoints and agent files: the one place that writes and reads them.

Both are zip archives whose parts are JSON and tensors, so that reading one executes nothing that stands in it. What has
neither form (a policy class or a callable of one's own) is pickled into a part of its own, which is read with `trust=True` alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import stable_baselines3
import torch
from stable_baselines3.common.save_util import open_path
from stable_baselines3.common.utils import get_system_info

from polyathlon.agents.parts.plain_data import NotPlain, PlainReader, PlainWriter
from polyathlon.archives import (
    DamagedFile,
    add_bytes,
    add_pickles,
    add_tensors,
    opened,
    read_pickles,
    read_tensors,
    replacing,
)
from polyathlon.envs.errors import UsageError

if TYPE_CHECKING:
    from polyathlon.agents.parts.saved_states import SavedStates

FILE_FORMAT = 3  # of checkpoints and of agent files; 3: JSON and tensors, pickles apart
MANIFEST, AGENT, STATES, TENSORS = "manifest.json", "agent.zip", "states.json", "states.pth"
VARIABLES = "pytorch_variables.pth"  # SB3's name for tensors that belong to no state
CLASSES = "agent_classes.json"  # names of the agent's class and of those that it is made of


# ---------------------------------------------------------------------------------------------------- agent files


def save_agent(
    agent: SavedStates,
    path: str | Path | io.BufferedIOBase,
    exclude: Iterable[str] | None = None,
    include: Iterable[str] | None = None,
) -> None:
    """Write what acting needs, with the member names of SB3's zip: the settings, and every state that `register_state` put into `save`.

    Args:
        agent: the agent.
        path: the file; ".zip" is added where it has no ending.
        exclude: attributes to leave out beside the usual ones.
        include: attributes that are usually left out.

    Raises:
        UsageError: an attribute cannot be written in any way; the message names it.
    """
    if not isinstance(path, str | Path):
        _write_agent(agent, path, exclude, include)
        return
    path = Path(path)
    path = path if path.suffix else path.with_name(path.name + ".zip")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        _write_agent(agent, file, exclude, include)


def _write_agent(
    agent: SavedStates, file: Any, exclude: Iterable[str] | None = None, include: Iterable[str] | None = None
) -> None:
    writer = PlainWriter(agent.named_classes())
    settings = {name: writer.write(value) for name, value in agent.settings(exclude, include).items()}
    with zipfile.ZipFile(file, "w") as archive:
        add_bytes(archive, "data", json.dumps(settings, indent=1).encode())
        add_bytes(archive, CLASSES, json.dumps(agent.class_names()).encode())
        add_tensors(archive, VARIABLES, writer.tensors)
        for name, state in agent.get_parameters().items():
            add_tensors(archive, f"{name}.pth", state)
        add_pickles(archive, writer.pickled, f"this {type(agent).__name__}")
        archive.writestr("_stable_baselines3_version", stable_baselines3.__version__)
        archive.writestr("system_info.txt", get_system_info(print_info=False)[1])


def read_agent(
    path: str | Path | io.BufferedIOBase,
    *,
    name: Any = None,
    agent: type[SavedStates] | None = None,
    device: torch.device | str = "cpu",
    trust: bool = False,
    named: Mapping[str, type] | None = None,
    given: Mapping[str, Any] | None = None,
    known_spaces: tuple[Any, ...] = (),
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read and check a file written by `save_agent`.

    Args:
        path: the file, or an open one.
        name: what messages call it; None takes the path.
        agent: class that the file is to be of; None takes any.
        device: where tensors go.
        trust: also read what was pickled, which can run any program that the file's writer put there.
        named: classes that have a name in the file.
        given: settings that count instead of those in the file, which then are not read.
        known_spaces: spaces that stand for pickled ones of the same `repr`.

    Returns:
        The settings, and {name: state_dict}.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: it is no archive, or not as it was written.
        UsageError: it is of another format or another agent, or holds pickles and `trust` is False.
    """
    name = name or _name(path)
    with _agent_archive(path, name) as (archive, plain):
        if agent is not None:
            _refuse_other_agent(archive, agent, name)
        reader = PlainReader(
            read_tensors(archive, VARIABLES, device), named, read_pickles(archive, trust), known_spaces
        )
        settings = {key: _setting(reader, key, value, name) for key, value in plain.items() if key not in (given or {})}
        states = _states(archive, device)
    return {**settings, **(given or {})}, states


def read_states(path: str | Path | io.BufferedIOBase, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read {name: state_dict} alone of a file written by `save_agent`; it needs no trust. See `read_agent`."""
    with _agent_archive(path, _name(path)) as (archive, _):
        return _states(archive, device)


def print_system_info(path: str | Path | io.BufferedIOBase) -> None:
    """Print the versions of this machine and those that an agent file was written with."""
    print("== CURRENT SYSTEM INFO ==")
    get_system_info()
    with _agent_archive(path, _name(path)) as (archive, _):
        print(f"== SAVED MODEL SYSTEM INFO ==\n{archive.read('system_info.txt').decode()}")


def _name(path: Any) -> Any:
    return path if isinstance(path, str | Path) else "this file"


def _states(archive: zipfile.ZipFile, device: torch.device | str) -> dict[str, Any]:
    parts = [part for part in archive.namelist() if part.endswith(".pth") and part != VARIABLES]
    return {part.removesuffix(".pth"): read_tensors(archive, part, device) for part in parts}


@contextlib.contextmanager
def _agent_archive(path: str | Path | io.BufferedIOBase, name: Any) -> Iterator[tuple[zipfile.ZipFile, dict[str, Any]]]:
    """Open an agent file of this format, with its settings as JSON."""
    file = open_path(path, "r", suffix="zip")
    try:
        with opened(file, name, "agent file") as archive:
            if "data" not in archive.namelist():
                raise UsageError(f"{name} is no agent file: it has no part 'data'")
            plain = json.loads(archive.read("data"))
            _refuse_other_format(plain, name)
            yield archive, plain
    finally:
        if isinstance(path, str | Path):
            file.close()
        else:
            file.seek(0)


def _refuse_other_agent(archive: zipfile.ZipFile, agent: type[SavedStates], name: Any) -> None:
    """Refuse the file of an agent that is neither of the class, nor of a user's own that one of the two is made of."""
    from polyathlon.registration import agent_class_names

    if CLASSES not in archive.namelist():  # written before files said so
        return
    stored, wanted = json.loads(archive.read(CLASSES)), agent.class_names()
    known = agent_class_names()
    is_own = (wanted[0] in stored[1:] and stored[0] not in known) or (
        stored[0] in wanted[1:] and wanted[0] not in known
    )
    if stored[0] != wanted[0] and not is_own:
        raise UsageError(
            f"{name} holds a {stored[0]}, not a {wanted[0]}: load it with {stored[0]}.load, or a run folder with polyathlon.evaluation.load_run"
        )


def _setting(reader: PlainReader, key: str, plain: Any, name: Any) -> Any:
    try:
        return reader.read(plain)
    except NotPlain as error:
        raise UsageError(
            f"{name}, {key}: {error}. If you trust whoever wrote it, load it with trust=True (--trust); else give the "
            f"value: custom_objects={{{key!r}: ...}}"
        ) from error


def _refuse_other_format(plain: Any, name: Any) -> None:
    found = plain.get("file_format")
    if found is None and any(isinstance(value, dict) and ":serialized:" in value for value in plain.values()):
        raise UsageError(
            f"{name} is a file of Stable-Baselines3, whose networks are others: load it with Stable-Baselines3's own class, or train the agent anew"
        )
    if found != FILE_FORMAT:
        raise UsageError(f"{name} is {_format(found, 'an agent file')}: save the agent again")


def _format(found: Any, kind: str) -> str:
    number = "without a format number" if found is None else f"of format {found!r}"
    return f"{kind} {number}, but this version of polyathlon reads format {FILE_FORMAT}"


# ---------------------------------------------------------------------------------------------------- checkpoints


def checkpoint(agent: SavedStates, path: str | Path, run: Mapping[str, Any] | None = None) -> Path:
    """Write the agent with everything that a bit-equal resume needs into one file, atomically.

    A crash or a full disk while writing leaves the previous file as it was.

    Args:
        agent: the agent.
        path: the file to write.
        run: the call that the checkpoint belongs to, as JSON; a run folder compares it.

    Returns:
        The path written.
    """
    path = Path(path)
    writer = PlainWriter(agent.named_classes())
    states = writer.write(agent.checkpoint_states())
    inner = io.BytesIO()
    _write_agent(agent, inner)
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        digests = {
            AGENT: add_bytes(archive, AGENT, inner.getvalue()),
            STATES: add_bytes(archive, STATES, json.dumps(states).encode()),
            TENSORS: add_tensors(archive, TENSORS, writer.tensors),
            **add_pickles(archive, writer.pickled, f"the training state of this {type(agent).__name__}"),
        }
        manifest = {"format": FILE_FORMAT, "agent": type(agent).__name__, "sha256": digests, "run": run}
        add_bytes(archive, MANIFEST, json.dumps(manifest).encode())
    return path


def read_checkpoint(path: str | Path, trust: bool = False) -> dict[str, Any]:
    """Read a file written by `checkpoint` and compare every part with its checksum.

    Args:
        path: the file.
        trust: also read what was pickled, which can run any program that the file's writer put there.

    Returns:
        "format", "agent" (name of the class), "zip" (the agent file, bytes), "states", {name: state_dict} of what stands
        in checkpoints alone, and "run", what `checkpoint` was given.

    Raises:
        DamagedFile: a part is not as it was written, or the file is no checkpoint.
        UsageError: the file is missing, of another format, or holds pickles and `trust` is False.
    """
    try:
        with opened(path, path, "checkpoint") as archive:
            if MANIFEST not in archive.namelist():
                raise DamagedFile(
                    f"{path} is not a checkpoint written by Agent.checkpoint, or is corrupted, or of an older polyathlon"
                )
            manifest = json.loads(archive.read(MANIFEST))
            if manifest["format"] != FILE_FORMAT:
                raise UsageError(f"{path} is {_format(manifest['format'], 'a checkpoint')}: start the run again")
            for part, digest in manifest["sha256"].items():
                if hashlib.sha256(archive.read(part)).hexdigest() != digest:
                    raise DamagedFile(f"the checkpoint {path} is corrupted (its part {part} is not as it was written)")
            reader = PlainReader(read_tensors(archive, TENSORS, "cpu"), pickles=read_pickles(archive, trust))
            states = {
                key: _setting(reader, key, value, path) for key, value in json.loads(archive.read(STATES)).items()
            }
            agent_file = archive.read(AGENT)
    except FileNotFoundError as error:
        raise UsageError(f"there is no checkpoint {path}") from error
    return {**{key: manifest[key] for key in ("format", "agent", "run")}, "zip": agent_file, "states": states}


def save_state(state: Any, path: Path, kind: str) -> None:
    """Write one state into a file, atomically.

    Args:
        state: what a `state_dict` returned.
        path: the file; its folder is made.
        kind: what it is, such as "replay buffer".
    """
    writer = PlainWriter()
    content = json.dumps({"format": FILE_FORMAT, "kind": kind, "state": writer.write(state)})
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        add_bytes(archive, STATES, content.encode())
        add_tensors(archive, TENSORS, writer.tensors)


def read_state(path: Path, kind: str) -> Any:
    """Read a file that `save_state` wrote.

    Raises:
        DamagedFile: it is not as it was written.
        UsageError: it is missing, of another kind or format.
    """
    try:
        with opened(path, path, kind) as archive:
            if STATES not in archive.namelist():
                raise UsageError(f"{path} is no {kind} written by polyathlon")
            content = json.loads(archive.read(STATES))
            if content.get("kind") != kind or content.get("format") != FILE_FORMAT:
                found = f"{content.get('kind')} of format {content.get('format')}"
                raise UsageError(f"{path} is a {found}, not a {kind} of format {FILE_FORMAT}")
            return PlainReader(read_tensors(archive, TENSORS, "cpu")).read(content["state"])
    except FileNotFoundError as error:
        raise UsageError(f"there is no {kind} {path}") from error


class CheckpointFiles:
    """The checkpoint of a run and the one before it; a crash at any moment leaves one of them whole.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "checkpoint.pt"
        self.previous_path = folder / "checkpoint.previous.pt"
        self.damaged_path = folder / "checkpoint.damaged.pt"

    def newest(self) -> Path | None:
        """Return the file to go on from; None before the first checkpoint."""
        return next((p for p in (self.path, self.previous_path) if p.exists()), None)

    def read_newest(self, trust: bool = False) -> tuple[Path, dict[str, Any]] | None:
        """Read the checkpoint to go on from: the one before, with a warning, where the newest is damaged.

        Args:
            trust: see `read_checkpoint`.

        Returns:
            The file and what `read_checkpoint` returns of it; None before the first checkpoint.

        Raises:
            UsageError: neither can be read.
        """
        newest = self.newest()
        if newest is None:
            return None
        try:
            return newest, read_checkpoint(newest, trust)
        except DamagedFile as error:
            if newest == self.previous_path or not self.previous_path.exists():
                raise DamagedFile(f"{error}; there is no other one: start the run again in another folder") from error
            found = self.previous_path, read_checkpoint(self.previous_path, trust)
            warnings.warn(f"{error}: going on from {self.previous_path}, the one before", stacklevel=2)
            return found

    def set_damaged_apart(self, used: Path) -> None:
        """Rename a newest file that was passed over, so that the next checkpoint does not take the place of a whole one."""
        if used == self.previous_path and self.path.exists():
            os.replace(self.path, self.damaged_path)

    def write(self, agent: SavedStates, run: Mapping[str, Any] | None = None) -> None:
        """Write a checkpoint and keep the one before.

        Raises:
            OSError: the folder cannot be written; what was there is as it was.
        """
        fresh = checkpoint(agent, self.folder / "checkpoint.new.pt", run)
        if self.path.exists():
            os.replace(self.path, self.previous_path)
        os.replace(fresh, self.path)
