"""Small pictures in plain numpy: thick lines, discs and filled areas on a canvas with coordinates of one's own."""

from __future__ import annotations

import numpy as np

Colour = tuple[int, int, int]
BLACK, GREY, BLUE, RED, GREEN = (32, 33, 36), (154, 160, 166), (26, 115, 232), (217, 48, 37), (24, 128, 56)


class Canvas:
    """A white picture of which a rectangle of the plane is shown.

    Args:
        left: smallest x shown, in the units of the task.
        right: largest x shown.
        bottom: smallest y shown.
        top: largest y shown.
        width: pixels from left to right; the height follows from the rectangle.
    """

    def __init__(self, left: float, right: float, bottom: float, top: float, width: int = 400) -> None:
        height = 2 * round(width * (top - bottom) / (right - left) / 2)
        self.pixels = np.full((height, width, 3), 255, np.uint8)
        self.x = (left + (np.arange(width) + 0.5) * (right - left) / width)[None, :]
        self.y = (top - (np.arange(height) + 0.5) * (top - bottom) / height)[:, None]

    def line(self, start: tuple[float, float], end: tuple[float, float], thickness: float, colour: Colour) -> None:
        """Draw a line with round ends from `start` to `end`."""
        (x0, y0), (x1, y1) = start, end
        dx, dy = x1 - x0, y1 - y0
        length = max(dx * dx + dy * dy, 1e-12)
        share = np.clip(((self.x - x0) * dx + (self.y - y0) * dy) / length, 0.0, 1.0)
        distance = (self.x - x0 - share * dx) ** 2 + (self.y - y0 - share * dy) ** 2
        self.pixels[distance <= (thickness / 2) ** 2] = colour

    def disc(self, centre: tuple[float, float], radius: float, colour: Colour) -> None:
        """Fill a circle."""
        self.line(centre, centre, 2 * radius, colour)

    def box(self, left: float, right: float, bottom: float, top: float, colour: Colour) -> None:
        """Fill a rectangle."""
        inside = (self.x >= left) & (self.x <= right) & (self.y >= bottom) & (self.y <= top)
        self.pixels[inside] = colour

    def below(self, heights: np.ndarray, colour: Colour) -> None:
        """Fill what lies below a curve, given as one height for each column of pixels (see `x`)."""
        self.pixels[self.y <= heights[None, :]] = colour
