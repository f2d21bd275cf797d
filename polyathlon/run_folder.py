"""The folder of a training run: what was called, with which versions, what was logged, and where to go on from."""

from __future__ import annotations

import csv
import functools
import importlib.metadata
import json
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from polyathlon.agents.base import Agent
from polyathlon.agents.parts.wiring import from_json, to_json
from polyathlon.envs.errors import UsageError

from . import __version__
from .archives import write_atomically
from .checkpoints import CheckpointFiles
from .folder_lock import FolderLock
from .warm_starts import WarmStart

LIBRARIES = ("torch", "numpy", "gymnasium", "stable-baselines3", "mujoco", "transformers", "peft", "reasoning-gym")
CONFIG_TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "str | None": str | None,
    "dict": dict,
    "WarmStart": int | dict | list,
}
LATER = ("env_spec", "env_lost")  # words of a run that came later: where they say nothing, checkpoints do not have them


@dataclass(frozen=True)
class RunConfig:
    """The call of `polyathlon.train` that a run answers.

    Attributes:
        agent: name of an agent or a recipe.
        env: id of the environment, "module:name" of a callable, or what an object is called that the folder cannot keep.
        total_timesteps: length of the whole run, in `unit`s.
        seed: seed of everything random.
        n_envs: number of environments.
        model: language model; None for the default or none.
        warm_start: problems that a language agent imitates first, or the words of its `warm_start`.
        env_kwargs: options of the environment.
        agent_kwargs: options of the agent.
        wrapper_kwargs: options of the wrappers that `adapt` puts on.
        tuned: options of the agent that a file of hyper-parameters gave when the run began; `agent_kwargs` go before them.
        unit: "steps", or "completions" of a language agent.
        env_spec: Gymnasium's spec as JSON, where an environment was given that was made from one.
        env_lost: why the folder cannot make the environment again; None where it can.
    """

    agent: str
    env: str
    total_timesteps: int
    seed: int = 0
    n_envs: int = 1
    model: str | None = None
    warm_start: WarmStart = 0
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    agent_kwargs: dict[str, Any] = field(default_factory=dict)
    wrapper_kwargs: dict[str, Any] = field(default_factory=dict)
    tuned: dict[str, Any] = field(default_factory=dict)
    unit: str = "steps"
    env_spec: str | None = None
    env_lost: str | None = None

    @property
    def all_agent_kwargs(self) -> dict[str, Any]:
        """Options of the agent, those of the file of hyper-parameters among them."""
        return {**self.tuned, **self.agent_kwargs}

    def refuse_changes(self, stored: RunConfig, path: Path) -> None:
        """Raise when a resumed call means another run; only `total_timesteps` may differ (and files of hyper-parameters).

        Raises:
            UsageError: naming what differs.
        """
        mine, theirs = vars(self), vars(stored)
        kept = [key for key in mine if key not in ("total_timesteps", "tuned", "env_lost")]
        changed = [key for key in kept if in_file(mine[key]) != in_file(theirs[key])]
        if changed:
            listed = "; ".join(f"{key} was {theirs[key]!r}, now {mine[key]!r}" for key in changed)
            raise UsageError(f"{path} holds another run, so it cannot be resumed: {listed}. Choose another --out.")

    def identity(self) -> dict[str, Any]:
        """What makes two calls the same run, as JSON; checkpoints carry it."""
        hidden = ("total_timesteps", "unit") if self.unit == "steps" else ("total_timesteps",)
        hidden = (*hidden, "env_lost", *(key for key in LATER if getattr(self, key) is None))
        return {key: value for key, value in asdict(self).items() if key not in hidden}


def versions() -> dict[str, str]:
    """Return the versions that the numbers of a run depend on."""
    own = {"python": platform.python_version(), "polyathlon": __version__, "machine": platform.machine()}
    return own | dict(_versions_of_libraries())


@functools.cache
def _versions_of_libraries() -> tuple[tuple[str, str], ...]:
    """Look through the installed packages once a process: their folders are many."""
    found = []
    for name in LIBRARIES:
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return tuple(found)


class RunFolder:
    """One run on disk.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_path = self.path / "config.json"
        self.versions_path = self.path / "versions.json"
        self.progress_path = self.path / "progress.csv"
        self.checkpoints = CheckpointFiles(self.path)
        self.logs_path = self.path / "checkpoint.logs.json"
        self.agent_path = self.path / "agent.zip"
        self.curve_path = self.path / "curve.png"
        self._lock = FolderLock(self.path)

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return self.config_path.exists()

    def create(self, config: RunConfig) -> None:
        """Start a run here.

        Raises:
            UsageError: the folder holds a run already, cannot be written, or an option has no JSON form.
        """
        if self.exists:
            self.refuse_to_overwrite()
        try:
            text = json.dumps(vars(config), indent=1, default=_row_as_json)
        except TypeError as error:
            raise UsageError(
                f"a run folder keeps the options as JSON, but one has no such form: {error}. Use plain numbers, texts, lists and dicts, or train without out="
            ) from error
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            write_atomically(self.versions_path, json.dumps(versions(), indent=1))
            write_atomically(self.config_path, text)
        except OSError as error:
            raise UsageError(f"the run folder {self.path} cannot be written: {error.strerror or error}") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing here; a folder that is not there yet is locked by `create`.

        Raises:
            UsageError: another process trains here.
        """
        try:
            if self.exists:
                self._lock.acquire()
            yield
        finally:
            self._lock.release()

    def refuse_to_overwrite(self) -> NoReturn:
        """Raise because a run stands here.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            f"{self.path} holds a run already: add --resume (resume=True) to go on with it, or choose another --out"
        )

    def config(self) -> RunConfig:
        """Read the call that started the run.

        Raises:
            UsageError: there is no run here, or its config is damaged.
        """
        if not self.exists:
            raise UsageError(
                f"there is no run in {self.path}: it has no config.json; polyathlon train --out writes one"
            )
        try:
            config = RunConfig(**json.loads(self.config_path.read_text(), object_hook=json_as_row))
        except (ValueError, TypeError) as error:
            raise UsageError(f"{self.config_path} is damaged: {error}") from error
        for each in fields(config):
            value, kinds = getattr(config, each.name), CONFIG_TYPES[str(each.type).partition("[")[0]]
            if not isinstance(value, kinds):
                raise UsageError(f"{self.config_path} is damaged: {each.name} is {value!r}")
        return config

    def extend(self, total_timesteps: int) -> None:
        """Record that the run is to go on to another total."""
        config = {**vars(self.config()), "total_timesteps": total_timesteps}
        write_atomically(self.config_path, json.dumps(config, indent=1, default=_row_as_json))

    def changed_versions(self) -> list[str]:
        """Return "name old -> new" for every version that differs from the run's start."""
        if not self.versions_path.exists():
            return []
        old, new = self._side_file(self.versions_path), versions()
        if old is None:
            return []
        return [f"{n} {old.get(n)} -> {new.get(n)}" for n in sorted({*old, *new}) if old.get(n) != new.get(n)]

    def _side_file(self, path: Path) -> dict[str, Any] | None:
        """Read a file that a run can go on without; None, with a warning, where it is damaged."""
        try:
            content = json.loads(path.read_text())
            if not isinstance(content, dict):
                raise ValueError(f"it holds a {type(content).__name__}")
        except ValueError as error:
            warnings.warn(f"{path} is damaged ({error}), going on without it", stacklevel=2)
            return None
        return content

    def newest_checkpoint(self) -> Path | None:
        """Return the file to go on from; None before the first checkpoint."""
        return self.checkpoints.newest()

    def checkpoint(self, config: RunConfig, trust: bool = False) -> tuple[Path, dict[str, Any]] | None:
        """Read the checkpoint to go on from; None before the first one.

        Args:
            config: the call that the run answers.
            trust: also read what was pickled, which can run any program that the file's writer put there.

        Returns:
            The file and its content; see `read_checkpoint`.

        Raises:
            UsageError: no checkpoint is whole, or it belongs to another run.
        """
        found = self.checkpoints.read_newest(trust)
        if found is not None:
            path, content = found
            theirs, mine = content["run"], json.loads(json.dumps(config.identity()))
            if theirs is not None and theirs != mine:
                changed = [key for key in mine if theirs.get(key) != mine[key]]
                listed = "; ".join(f"{key} {theirs.get(key)!r}, here {mine[key]!r}" for key in changed)
                raise UsageError(f"{path} is the checkpoint of another run than {self.config_path} says: {listed}")
        return found

    def save(self, agent: Agent) -> None:
        """Write a checkpoint and keep the one before; a crash at any moment leaves one of them whole.

        Raises:
            OSError: the folder cannot be written; what was there is as it was.
        """
        entries = self._log_entries()
        logger = agent.logger
        entries[str(agent.num_timesteps)] = {
            "rows": count_rows(self.progress_path),
            "values": {key: plain(value) for key, value in logger.name_to_value.items()},
            "counts": dict(logger.name_to_count),
            "excluded": {key: list(value) for key, value in logger.name_to_excluded.items() if value},
        }
        newest = sorted(entries, key=int)[-3:]
        write_atomically(self.logs_path, json.dumps({key: entries[key] for key in newest}))
        self.checkpoints.write(agent, self.config().identity())

    def unwritable(self, error: OSError) -> str:
        """Say that a checkpoint could not be written."""
        whole = "the one before is whole" if self.newest_checkpoint() else "there is none yet"
        return f"the checkpoint in {self.path} cannot be written ({error.strerror or error}); {whole}"

    def _log_entries(self) -> dict[str, Any]:
        entries = self._side_file(self.logs_path) if self.logs_path.exists() else None
        wanted = {"rows", "values", "counts", "excluded"}
        if entries is not None and not all(
            key.isdecimal() and isinstance(entry, dict) and set(entry) == wanted for key, entry in entries.items()
        ):
            warnings.warn(f"{self.logs_path} is damaged, going on without it", stacklevel=2)
            return {}
        return entries or {}

    def resumed_logs(self, step: int) -> dict[str, Any]:
        """Cut the log to where it stood at the checkpoint of `step`, and return the values that waited for the next record.

        Raises:
            UsageError: the log is damaged.
        """
        entry = self._log_entries().get(str(step))
        if entry is None:  # what was logged until then
            steps = [float(record.get("step") or 0) for record in self._records()]
            entry = {"rows": sum(1 for each in steps if each <= step), "values": {}, "counts": {}, "excluded": {}}
        self._records()
        keep_rows(self.progress_path, entry["rows"])
        return dict(entry)

    def _records(self) -> list[dict[str, float]]:
        try:
            rows = []
            if self.progress_path.exists():
                with self.progress_path.open(newline="") as file:
                    rows = list(csv.DictReader(file))
        except (UnicodeDecodeError, csv.Error) as error:
            raise UsageError(
                f"{self.progress_path} is damaged ({error}): move it away, and the run goes on with a new log"
            ) from error
        return [{k: v for k, v in ((k, _number(v)) for k, v in row.items()) if v is not None} for row in rows]

    def progress(self) -> list[dict[str, float]]:
        """Read the log: one dict a record, without the cells that are empty or no numbers.

        Raises:
            UsageError: nothing was logged, or the log is damaged.
        """
        records = self._records()
        if not records:
            raise UsageError(f"nothing is logged in {self.progress_path} yet; train longer, or log more often")
        return records


def in_file(value: Any) -> str:
    """Return how a config file has a value: tuples are lists there."""
    return json.dumps(value, sort_keys=True, default=_row_as_json)


def _row_as_json(value: Any) -> dict[str, Any]:
    """Write the row of a method, such as a `Recipe`, among options that are plain JSON."""
    try:
        return {"method_row": json.loads(to_json(value))}
    except UsageError:
        from .own_tasks import import_path

        reason = f" ({import_path(value)[1]})" if callable(value) else ""
        raise TypeError(f"a {type(value).__name__}{reason}") from None


def json_as_row(data: dict[str, Any]) -> Any:
    """Read what `_row_as_json` wrote; other mappings stay."""
    if set(data) != {"method_row"}:
        return data
    import polyathlon.agents.language.recipes  # noqa: F401  knows the records of recipes

    return from_json(json.dumps(data["method_row"]))


def _number(cell: Any) -> float | None:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def plain(value: Any) -> Any:
    """Turn a numpy or torch scalar into Python's number, which keeps every bit."""
    return value.item() if hasattr(value, "item") else value


def count_rows(path: Path) -> int:
    """Return the number of records of a CSV log."""
    if not path.exists():
        return 0
    with path.open(newline="") as file:
        return max(0, sum(1 for _ in csv.reader(file)) - 1)


def keep_rows(path: Path, rows: int) -> None:
    """Cut a CSV log after its first `rows` records."""
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    write_atomically(path, "".join(lines[: rows + 1]) if rows else "")
