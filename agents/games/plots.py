"""Pictures of leagues: the pay-off matrix, and ratings over time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from polyathlon.envs.errors import UsageError

from .ratings import Matrix, Ratings


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _written(figure: Any, path: str | Path) -> Path:
    out = Path(path)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=120)
    except (OSError, ValueError) as error:
        raise UsageError(f"the picture {out} cannot be written: {error}") from error
    return out


def plot_matrix(matrix: Matrix, path: str | Path) -> Path:
    """Draw the mean reward of each row's player against each column's.

    Raises:
        UsageError: the picture cannot be written.
    """
    size = len(matrix.names)
    figure = _figure(1.6 + 0.8 * size, 1.2 + 0.7 * size)
    axis = figure.add_subplot()
    known = np.abs(matrix.reward[~np.isnan(matrix.reward)])
    bound = max(float(known.max(initial=0.0)), 1e-9) if size > 1 else 1.0
    image = axis.imshow(matrix.reward, cmap="RdBu", vmin=-bound, vmax=bound)
    axis.set_xticks(range(size), matrix.names, rotation=45, ha="right")
    axis.set_yticks(range(size), matrix.names)
    for (i, j), value in np.ndenumerate(matrix.reward):
        if not np.isnan(value):
            colour = "white" if abs(value) > 0.6 * bound else "black"
            axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
    axis.set(title="mean reward of the row's player", xlabel="against")
    figure.colorbar(image, ax=axis, shrink=0.8)
    return _written(figure, path)


def plot_ratings(ratings: Ratings, born: dict[str, int], path: str | Path) -> Path:
    """Draw the ratings with their intervals over the steps at which the members were taken; others are lines.

    Args:
        ratings: rating of each player.
        born: steps of those that are members.
        path: the picture.

    Raises:
        UsageError: the picture cannot be written.
    """
    figure = _figure(7, 4.2)
    axis = figure.add_subplot()
    members = sorted((steps, name) for name, steps in born.items() if name in ratings)
    steps = [step for step, _ in members]
    found = [ratings[name] for _, name in members]
    spread = [[r.elo - r.low for r in found], [r.high - r.elo for r in found]]
    axis.errorbar(steps, [r.elo for r in found], yerr=spread, marker="o", capsize=3, label="members")
    for number, name in enumerate(n for n in ratings if n not in born):
        rating = ratings[name]
        axis.axhline(rating.elo, color=f"C{number + 1}", linestyle="--", label=name)
        axis.axhspan(rating.low, rating.high, color=f"C{number + 1}", alpha=0.1)
    axis.set(xlabel="timesteps", ylabel="Elo (random play or the first player is 0)")
    axis.grid(alpha=0.3)
    axis.legend()
    return _written(figure, path)
