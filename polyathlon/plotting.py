"""Learning curves of runs as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from polyathlon.envs.errors import UsageError, unknown_name

from .run_folder import RunFolder

METRICS = ("rollout/ep_rew_mean", "rollout/reward_mean", "rollout/reward")


def curve(folder: RunFolder, metric: str | None = None) -> tuple[str, np.ndarray, np.ndarray]:
    """Read one curve of a run.

    Args:
        folder: the run.
        metric: column of its log; None takes the mean reward of the rollouts.

    Returns:
        The column's name, the steps [T] and the values [T].

    Raises:
        UsageError: nothing is logged, or there is no such column.
    """
    records = folder.progress()
    columns = {key for record in records for key in record}
    metric = metric or reward_column(columns)
    if metric is None:
        raise UsageError(f"no reward is logged in {folder.path} yet: no episode has ended. Train longer.")
    if metric not in columns:
        raise unknown_name(f"metric of {folder.path}", metric, columns)
    points = [(record["step"], record[metric]) for record in records if metric in record]
    steps, values = np.array(points, dtype=float).T
    return metric, steps, values


def columns_of(folder: RunFolder, metric: str | None) -> list[str | None]:
    """Return the columns of a run's log that a metric means: itself, or all of a group such as "experts" or "experts/weight"."""
    columns = sorted({key for record in folder.progress() for key in record})
    if metric is None or metric in columns:
        return [metric]
    group = [name for name in columns if name.startswith((f"{metric.rstrip('/')}/", f"{metric}_"))]
    return [*group] or [metric]


def reward_column(columns: Iterable[str]) -> str | None:
    """Return the column of a log that holds the mean reward, or None."""
    known = set(columns)
    return next((name for name in METRICS if name in known), None) or next(
        (name for name in sorted(known) if "reward" in name or "rew_mean" in name), None
    )


def plot_runs(runs: Sequence[str | Path], out: str | Path, metric: str | None = None) -> Path:
    """Draw the curves of runs into one picture; runs that differ in the seed alone share a colour.

    Args:
        runs: run folders.
        out: the picture to write; its ending gives the format (png, pdf, svg).
        metric: column of the logs, or the beginning that several share ("experts" draws each of `experts/...`); None takes
            the mean reward.

    Returns:
        The path of the picture.

    Raises:
        UsageError: no run, an unknown metric, or a picture that cannot be written.
    """
    if not runs:
        raise UsageError("give at least one run folder to plot")
    curves = []
    for run in runs:
        folder = RunFolder(run)
        config = folder.config()
        label, names = f"{config.agent} on {config.env}", columns_of(folder, metric)
        for name in names:
            kind = label if len(names) == 1 else f"{label}: {name}"
            curves.append((kind, config.seed, *curve(folder, name)))
    return draw(curves, Path(out))


def draw(curves: Sequence[tuple[str, int, str, np.ndarray, np.ndarray]], out: Path) -> Path:
    """Draw (label, seed, metric, steps, values) curves.

    Raises:
        UsageError: the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    labels = list(dict.fromkeys(label for label, *_ in curves))
    for label, seed, _, steps, values in curves:
        is_first = next(s for name, s, *_ in curves if name == label) == seed
        marker = "o" if len(steps) < 3 else None
        axis.plot(steps, values, color=f"C{labels.index(label)}", marker=marker, label=label if is_first else None)
    metrics = list(dict.fromkeys(metric for _, _, metric, *_ in curves))
    axis.set(xlabel="timesteps", ylabel=" / ".join(metrics) if len(metrics) < 3 else metrics[0].partition("/")[0])
    axis.grid(alpha=0.3)
    axis.legend()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=120)
    except (OSError, ValueError) as error:
        raise UsageError(f"the picture {out} cannot be written: {error}") from error
    return out
