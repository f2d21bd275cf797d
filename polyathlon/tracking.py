"""Experiment trackers: the log of a run is sent to Weights & Biases, MLflow or Trackio as well."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from typing import Any

from stable_baselines3.common.logger import KVWriter, filter_excluded_keys

from polyathlon.envs.errors import UsageError, require, unknown_name

from .archives import write_atomically
from .run_folder import RunFolder, plain

PROJECT = "polyathlon"
FILE = "track.json"  # of a run folder: which run of the tracker it is


class Tracker(KVWriter):
    """Sends every record of the log to a tracker; where that fails, one warning says so and the run goes on.

    Args:
        send: `(values, step)`, of one record.
        finish: called at the end.
    """

    def __init__(self, send: Callable[[dict[str, float], int], None], finish: Callable[[], None]) -> None:
        self.send, self.finish, self.has_failed = send, finish, False

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Send the numbers of a record."""
        kept = {key: plain(value) for key, value in filter_excluded_keys(key_values, key_excluded, "tracker").items()}
        numbers = {
            key: float(value) for key, value in kept.items() if isinstance(value, int | float) and math.isfinite(value)
        }
        try:
            self.send(numbers, step)
        except Exception as error:  # whatever a tracker raises when its server is away
            if not self.has_failed:
                self.has_failed = True
                warnings.warn(
                    f"the tracker did not take a record ({error}); the run goes on, its log is in its folder",
                    stacklevel=2,
                )

    def close(self) -> None:
        """Tell the tracker that the run is over."""
        self.finish()


def refuse_unknown_tracker(name: str, has_folder: bool) -> None:
    """Refuse a tracker before anything trains.

    Raises:
        UsageError: there is no such tracker, or the run has no folder.
        ImportError: its package is not installed; the message has the command.
    """
    if name not in MAKERS:
        raise unknown_name("tracker", name, MAKERS)
    if not has_folder:
        raise UsageError(f"track={name!r} needs a run folder, which says which run of the tracker it is: give out=")
    require(name, name)


def make_tracker(name: str, folder: RunFolder, config: dict[str, Any]) -> Tracker:
    """Begin, or go on with, the run of a folder in a tracker.

    Args:
        name: "wandb", "mlflow" or "trackio"; where they send to and as whom, their own environment variables say (`WANDB_MODE=offline`,
            `MLFLOW_TRACKING_URI`, `TRACKIO_SPACE_ID`).
        folder: the run folder; its name is the run's.
        config: what the run is, as plain values.

    Raises:
        ImportError: its package is not installed; the message has the command.
    """
    path = folder.path / FILE
    known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    tracker, run = MAKERS[name](folder, config, known.get(name))
    write_atomically(path, json.dumps({**known, name: run}, indent=1))
    return tracker


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested options under names with dots."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return found


def _wandb(folder: RunFolder, config: dict[str, Any], run: str | None) -> tuple[Tracker, str]:
    wandb: Any = require("wandb", "wandb")
    begun = wandb.init(
        project=PROJECT, name=folder.path.name, id=run, resume="allow", config=config, dir=str(folder.path)
    )
    return Tracker(lambda values, step: begun.log(values, step=step), begun.finish), str(begun.id)


def _mlflow(folder: RunFolder, config: dict[str, Any], run: str | None) -> tuple[Tracker, str]:
    mlflow: Any = require("mlflow", "mlflow")
    client = mlflow.tracking.MlflowClient()
    if run is None:
        experiment = client.get_experiment_by_name(PROJECT)
        place = client.create_experiment(PROJECT) if experiment is None else experiment.experiment_id
        run = str(client.create_run(place, run_name=folder.path.name).info.run_id)
        for key, value in flat(config).items():
            client.log_param(run, key, value)
    identity = run

    def send(values: dict[str, float], step: int) -> None:
        for key, value in values.items():
            client.log_metric(identity, key, value, step=step)

    return Tracker(send, lambda: client.set_terminated(identity)), run


def _trackio(folder: RunFolder, config: dict[str, Any], run: str | None) -> tuple[Tracker, str]:
    trackio: Any = require("trackio", "trackio")
    name = run or folder.path.name
    begun = trackio.init(project=PROJECT, name=name, resume="allow", config=flat(config))
    return Tracker(lambda values, step: begun.log(values, step=step), begun.finish), str(getattr(begun, "name", name))


MAKERS = {"wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}
