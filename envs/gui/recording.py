"""Playwright's trace and a film of an episode."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from .tabs import Tab

UNCOVERED = "#sync-task-cover { visibility: hidden !important; }"  # what MiniWoB++ lays over a page that has ended


def decoded(data: bytes) -> np.ndarray:
    """Return a PNG as (H, W, 3) uint8."""
    import imageio.v3 as iio

    picture: np.ndarray = iio.imread(io.BytesIO(data), extension=".png")
    return np.ascontiguousarray(picture[..., :3])


class Recorder:
    """Keeps what happens on a page.

    Args:
        folder: where the files go: `TASK.zip` for Playwright's trace viewer, `TASK.mp4`, two pictures a second.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser()
        self.frames: list[np.ndarray] = []

    async def start(self, tab: Tab) -> None:
        """Begin the trace."""
        self.folder.mkdir(parents=True, exist_ok=True)
        await tab.renderer.context.tracing.start(screenshots=True, snapshots=True)

    async def frame(self, tab: Tab) -> None:
        """Take a picture."""
        self.frames.append(decoded(await tab.page.screenshot(style=UNCOVERED)))

    async def save_trace(self, tab: Tab, task: str) -> None:
        """Write the trace of an episode, unless its page broke."""
        if tab.broken is None:
            await tab.renderer.context.tracing.stop(path=f"{self.folder / task}.zip")

    def save_film(self, task: str) -> None:
        """Write the film of an episode, on the caller's thread: encoding would hold up every other page of the browser.

        Raises:
            OSError: it could not be written.
        """
        import imageio.v2 as imageio

        film = self.folder / f"{task}.mp4"
        if self.frames:
            imageio.mimwrite(str(film), list(self.frames), fps=2, macro_block_size=4)
            if not film.is_file():  # of short films imageio does not notice that ffmpeg failed
                raise OSError(f"ffmpeg wrote no {film.name}")
