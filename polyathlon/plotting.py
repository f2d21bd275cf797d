"""Learning curves of runs as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polyathlon.envs.errors import UsageError, unknown_name

from .run_folder import RunFolder
from .run_groups import group_runs
from .statistics import curve_band

POINTS = 60  # at which curves of different places are compared
METRICS = ("rollout/ep_rew_mean", "rollout/reward_mean", "rollout/reward")
OF_RECORDS = ("train/accuracy", "train/policy_loss")  # of runs that learn from records, in which nothing is rewarded


def curve(folder: RunFolder, metric: str | None = None) -> tuple[str, np.ndarray, np.ndarray]:
    """Read one curve of a run.

    Args:
        folder: the run.
        metric: column of its log; None takes the mean reward of the rollouts, or of a run that learns from records the
            accuracy or else the loss.

    Returns:
        The column's name, the steps [T] and the values [T].

    Raises:
        UsageError: nothing is logged, or there is no such column.
    """
    records = folder.progress()
    columns = {key for record in records for key in record}
    metric = metric or shown_column(columns)
    if metric is None:
        raise UsageError(
            f"no reward is logged in {folder.path} yet: no episode has ended. Train longer, or choose a --metric: "
            f"{', '.join(sorted(key for key in columns if key.startswith('train/'))) or 'none is logged yet'}."
        )
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


def shown_column(columns: Iterable[str]) -> str | None:
    """Return the column of a log that tells best how the run goes, or None: the mean reward, or what records teach."""
    known = set(columns)
    return reward_column(known) or next((name for name in OF_RECORDS if name in known and "data/epoch" in known), None)


def plot_runs(runs: Sequence[str | Path], out: str | Path, metric: str | None = None, smooth: float = 0.0) -> Path:
    """Draw the curves of runs into one picture.

    Runs that differ in the seed alone are drawn as their mean with its 95 % interval, the single ones pale behind; labels say what
    differs between the settings.

    Args:
        runs: run folders.
        out: the picture to write; its ending gives the format (png, pdf, svg).
        metric: column of the logs, or the beginning that several share ("experts" draws each of `experts/...`); None takes
            the mean reward, of runs that learn from records the accuracy or else the loss.
        smooth: weight of the past in a moving average over the logged records, 0 (none) to below 1, as in TensorBoard.

    Returns:
        The path of the picture.

    Raises:
        UsageError: no run, an unknown metric, an impossible weight, or a picture that cannot be written.
    """
    if not runs:
        raise UsageError("give at least one run folder to plot")
    if not 0 <= smooth < 1:
        raise UsageError(f"smooth is the weight of the past, at least 0 and below 1, got {smooth!r}")
    curves = []
    for group in group_runs(runs):
        names = columns_of(group.folders[0], metric)
        for name in names:
            found = [curve(folder, name) for folder in group.folders]
            label = group.label if len(names) == 1 else f"{group.label}: {name}"
            curves.append(Curves(label, found[0][0], tuple((steps, values) for _, steps, values in found)))
    return draw(curves, Path(out), smooth)


@dataclass(frozen=True)
class Curves:
    """The curves of one setting.

    Attributes:
        label: what the legend says.
        metric: what is drawn.
        runs: (steps [T], values [T]) of each run.
    """

    label: str
    metric: str
    runs: tuple[tuple[np.ndarray, np.ndarray], ...]


def smoothed(values: np.ndarray, weight: float) -> np.ndarray:
    """Return the exponential moving average of values [T], without the bias of its start (TensorBoard's).

    Value t is sum_i w^(t-i) x_i / sum_i w^(t-i) over i <= t whose x_i is a number; where x_t is none, neither is value t.
    """
    total, mass, found = 0.0, 0.0, []
    for value in values:
        if np.isnan(value):  # 0 times NaN is NaN: it would stay in all that come after
            found.append(np.nan)
            continue
        total, mass = weight * total + float(value), weight * mass + 1.0
        found.append(total / mass)
    return np.array(found)


def common_places(places: Sequence[np.ndarray]) -> np.ndarray:
    """Return places at which all curves are known: their own where these are the same, else evenly between."""
    if all(len(x) == len(places[0]) and (x == places[0]).all() for x in places):
        return places[0]
    low, high = max(x[0] for x in places), min(x[-1] for x in places)
    return np.linspace(low, high, POINTS) if high > low else np.array([])


def draw(curves: Sequence[Curves], out: Path, smooth: float = 0.0) -> Path:
    """Draw settings.

    Raises:
        UsageError: the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    for number, each in enumerate(curves):
        _draw_setting(axis, each, f"C{number}", smooth)
    metrics = list(dict.fromkeys(each.metric for each in curves))
    axis.set(xlabel="timesteps", ylabel=" / ".join(metrics) if len(metrics) < 3 else metrics[0].partition("/")[0])
    axis.grid(alpha=0.3)
    axis.legend()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=120)
    except (OSError, ValueError) as error:
        raise UsageError(f"the picture {out} cannot be written: {error}") from error
    return out


def _draw_setting(axis: Any, curves: Curves, color: str, smooth: float) -> None:
    runs = [(steps, smoothed(values, smooth)) for steps, values in curves.runs]
    x = common_places([steps for steps, _ in runs])
    has_band = len(runs) > 1 and len(x) > 0
    if has_band or smooth:
        for steps, values in curves.runs:
            axis.plot(steps, values, color=color, alpha=0.25, lw=0.8)
    if has_band:
        mean, low, high = curve_band([np.interp(x, *run) for run in runs])
        axis.fill_between(x, low, high, color=color, alpha=0.18, lw=0)
        runs = [(x, mean)]
    label = f"{curves.label} (mean of {len(curves.runs)})" if has_band else curves.label
    for number, (steps, values) in enumerate(runs):
        marker = "o" if len(steps) < 3 else None
        axis.plot(steps, values, color=color, marker=marker, label=label if number == 0 else None)
