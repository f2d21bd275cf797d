"""Pictures of solutions: tours, routes by vehicle, prizes collected, packed items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_SIZE_INCHES = 4.0
_DPI = 80
_OPEN, _ROUTE, _CURRENT, _START = "#9aa0a6", "#1a73e8", "#d93025", "#188038"


def _canvas(title: str, is_map: bool = True) -> tuple[Any, Any]:
    """Return a canvas and its axes."""
    # a figure of its own canvas leaves pyplot's global state and the user's back end alone
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_SIZE_INCHES, _SIZE_INCHES), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if is_map:
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])
    if title:
        axes.set_title(title, fontsize=9)
    return canvas, axes


def _pixels(canvas: Any) -> np.ndarray:
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_tour(
    xy: np.ndarray, tour: np.ndarray, closed: bool, title: str = "", prizes: np.ndarray | None = None
) -> np.ndarray:
    """Draw a tour, complete or not.

    Args:
        xy: [N, 2] points.
        tour: [m] int, the points visited so far in order, m >= 1.
        closed: draw the way back to the first point.
        title: text above the picture.
        prizes: [N] in [0, 1], drawn as the size of the points; None for points of one size.

    Returns:
        [H, W, 3] uint8.
    """
    canvas, axes = _canvas(title)
    route = np.concatenate([tour, tour[:1]]) if closed else np.asarray(tour)
    sizes = np.full(len(xy), 14.0) if prizes is None else 6.0 + 60.0 * np.asarray(prizes)
    axes.scatter(xy[:, 0], xy[:, 1], s=sizes, color=_OPEN, zorder=2)
    axes.plot(xy[route, 0], xy[route, 1], color=_ROUTE, linewidth=1.3, zorder=1)
    axes.scatter(xy[tour, 0], xy[tour, 1], s=sizes[tour], color=_ROUTE, zorder=3)
    axes.scatter(xy[tour[:1], 0], xy[tour[:1], 1], s=46, marker="s", color=_START, zorder=4)
    if not closed:
        axes.scatter(xy[tour[-1:], 0], xy[tour[-1:], 1], s=34, color=_CURRENT, zorder=5)
    return _pixels(canvas)


def split_routes(walk: Sequence[int]) -> list[list[int]]:
    """Cut a walk with zeros at the depot into the customers of each vehicle; empty routes are left out."""
    routes: list[list[int]] = [[]]
    for node in walk:
        if node == 0:
            routes.append([])
        else:
            routes[-1].append(int(node))
    return [route for route in routes if route]


def draw_routes(xy: np.ndarray, walk: Sequence[int], demand: np.ndarray, title: str = "") -> np.ndarray:
    """Draw the routes of vehicles, each in a colour of its own.

    Args:
        xy: [N, 2] nodes, the depot first.
        walk: nodes in order, with 0 at every visit of the depot.
        demand: [N] as a share of the capacity, drawn as the size of the customers.
        title: text above the picture.

    Returns:
        [H, W, 3] uint8.
    """
    from matplotlib import colormaps

    canvas, axes = _canvas(title)
    sizes = 8.0 + 120.0 * np.asarray(demand)
    axes.scatter(xy[1:, 0], xy[1:, 1], s=sizes[1:], color=_OPEN, zorder=2)
    routes, is_home = split_routes(walk), len(walk) > 1 and walk[-1] == 0
    for number, route in enumerate(routes):
        colour = colormaps["tab10"](number % 10)
        ends = [] if number == len(routes) - 1 and not is_home else [0]
        path = xy[[0, *route, *ends]]
        axes.plot(path[:, 0], path[:, 1], color=colour, linewidth=1.2, zorder=1)
        axes.scatter(xy[route, 0], xy[route, 1], s=sizes[route], color=[colour], zorder=3)
    axes.scatter(xy[:1, 0], xy[:1, 1], s=60, marker="s", color=_START, zorder=4)
    return _pixels(canvas)


def draw_circle(size: int, tour: np.ndarray, closed: bool, title: str = "") -> np.ndarray:
    """Draw a tour of nodes that have no coordinates: they stand on a circle, in the order of their numbers.

    Args:
        size: number of nodes.
        tour: [m] int, the nodes visited so far in order.
        closed: draw the way back to the first node.
        title: text above the picture.

    Returns:
        [H, W, 3] uint8.
    """
    angle = 2.0 * np.pi * np.arange(size) / size
    return draw_tour(np.stack([np.sin(angle), np.cos(angle)], axis=1), tour, closed, title)


def draw_items(value: np.ndarray, weight: np.ndarray, packed: np.ndarray, title: str = "") -> np.ndarray:
    """Draw items by weight and value, the packed ones in colour.

    Args:
        value: [m] values.
        weight: [m] weights.
        packed: [k] int, the items that are packed.
        title: text above the picture.

    Returns:
        [H, W, 3] uint8.
    """
    canvas, axes = _canvas(title, is_map=False)
    axes.scatter(weight, value, s=22, color=_OPEN, label="left", zorder=2)
    axes.scatter(weight[packed], value[packed], s=26, color=_ROUTE, label="packed", zorder=3)
    axes.set_xlabel("weight", fontsize=8)
    axes.set_ylabel("value", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7)
    return _pixels(canvas)
