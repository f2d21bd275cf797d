"""Pictures of routes."""

from __future__ import annotations

import numpy as np

_SIZE_INCHES = 4.0
_DPI = 80
_OPEN, _ROUTE, _CURRENT, _START = "#9aa0a6", "#1a73e8", "#d93025", "#188038"


def draw_tour(xy: np.ndarray, tour: np.ndarray, closed: bool, title: str = "") -> np.ndarray:
    """Draw a tour, complete or not.

    Args:
        xy: [N, 2] points.
        tour: [m] int, the points visited so far in order, m >= 1.
        closed: draw the way back to the first point.
        title: text above the picture.

    Returns:
        [H, W, 3] uint8.
    """
    # a figure of its own canvas leaves pyplot's global state and the user's back end alone
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_SIZE_INCHES, _SIZE_INCHES), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    if title:
        axes.set_title(title, fontsize=9)
    route = np.concatenate([tour, tour[:1]]) if closed else np.asarray(tour)
    axes.scatter(xy[:, 0], xy[:, 1], s=14, color=_OPEN, zorder=2)
    axes.plot(xy[route, 0], xy[route, 1], color=_ROUTE, linewidth=1.3, zorder=1)
    axes.scatter(xy[tour, 0], xy[tour, 1], s=14, color=_ROUTE, zorder=3)
    axes.scatter(xy[tour[:1], 0], xy[tour[:1], 1], s=46, marker="s", color=_START, zorder=4)
    if not closed:
        axes.scatter(xy[tour[-1:], 0], xy[tour[-1:], 1], s=34, color=_CURRENT, zorder=5)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
