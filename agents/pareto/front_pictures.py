"""Pictures of Pareto fronts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyathlon.envs.errors import UsageError


def draw_front(fronts: Mapping[str, NDArray[Any]], out: Path, names: Sequence[str] | None = None) -> Path:
    """Draw fronts into one picture: points for two and three objectives, parallel coordinates for more.

    Args:
        fronts: name of a set of policies -> its returns (A, m).
        out: the picture to write; its ending gives the format (png, pdf, svg).
        names: names of the m objectives.

    Returns:
        The path of the picture.

    Raises:
        UsageError: the names do not fit, or the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    objectives = next(iter(fronts.values())).shape[1]
    labels = [f"objective {k + 1}" for k in range(objectives)] if names is None else list(names)
    if len(labels) != objectives:
        raise UsageError(f"the front has {objectives} objectives: give as many names, got {len(labels)}")
    figure = Figure(figsize=(6.5, 5), layout="constrained")
    FigureCanvasAgg(figure)
    if objectives == 3:
        _points_in_space(figure.add_subplot(projection="3d"), fronts, labels)
    elif objectives > 3:
        _parallel_coordinates(figure.add_subplot(), fronts, labels)
    else:
        _points_in_plane(figure.add_subplot(), fronts, labels)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=120)
    except (OSError, ValueError) as error:
        raise UsageError(f"the picture {out} cannot be written: {error}") from error
    return out


def _points_in_plane(axis: Any, fronts: Mapping[str, NDArray[Any]], labels: Sequence[str]) -> None:
    for name, front in fronts.items():
        second = front[:, 1] if front.shape[1] > 1 else np.zeros(len(front))
        axis.scatter(front[:, 0], second, s=18, label=f"{name} ({len(front)} policies)")
    axis.set(xlabel=f"return of {labels[0]}", ylabel=f"return of {labels[1]}" if len(labels) > 1 else "")
    axis.grid(alpha=0.3)
    axis.legend()


def _points_in_space(axis: Any, fronts: Mapping[str, NDArray[Any]], labels: Sequence[str]) -> None:
    for name, front in fronts.items():
        axis.scatter(*front.T, s=18, label=f"{name} ({len(front)} policies)")
    axis.set(xlabel=labels[0], ylabel=labels[1], zlabel=labels[2])
    axis.legend()


def _parallel_coordinates(axis: Any, fronts: Mapping[str, NDArray[Any]], labels: Sequence[str]) -> None:
    """Draw a line for each policy over the objectives, each scaled from its least to its largest return."""
    together = np.concatenate(list(fronts.values()))
    low, high = together.min(0), together.max(0)
    extent = np.where(high > low, high - low, 1.0)
    for number, (name, front) in enumerate(fronts.items()):
        lines = axis.plot(((front - low) / extent).T, color=f"C{number}", alpha=0.5, linewidth=1)
        lines[0].set_label(f"{name} ({len(front)} policies)")
    ticks = [f"{label}\n{a:.3g} to {b:.3g}" for label, a, b in zip(labels, low, high)]
    axis.set_xticks(range(len(labels)), ticks, fontsize=8)
    axis.set_ylabel("return, scaled for each objective")
    axis.grid(alpha=0.3, axis="x")
    axis.legend()
