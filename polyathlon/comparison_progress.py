"""How far the runs of a comparison are, read from their folders, as a progress bar."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from polyathlon.envs.data.progress import Progress

from .run_folder import RunFolder

SECONDS = 2.0  # between two looks
PLACES = {"steps": "step", "completions": "time/episodes"}  # columns of the log, by the unit of a run's length


def share_done(folder: Path) -> float:
    """Return how much of a run is done, in [0, 1], by its files; 1 where its result is written."""
    if (folder / "result.json").exists():
        return 1.0
    run = RunFolder(folder)
    try:
        config = json.loads(run.config_path.read_text())
        length, column = float(config["total_timesteps"]), PLACES[config["unit"]]
        with run.progress_path.open(newline="") as file:
            rows = csv.DictReader(file)
            places = [row[column] for row in rows if row.get(column)]
        return min(float(places[-1]) / length, 0.99) if places else 0.0  # the score is still to come
    except (OSError, ValueError, KeyError, csv.Error):  # not begun, or being written
        return 0.0


@contextmanager
def watched_runs(folders: Sequence[Path], shown: bool | None = None) -> Iterator[None]:
    """Show how far runs are while they go on, here or in processes of their own.

    Args:
        folders: of the runs that are to be done.
        shown: as of `Progress`.
    """
    over = threading.Event()
    with Progress(len(folders), "run", what="comparing", shown=shown) as bar:

        def look() -> None:
            while not over.wait(SECONDS):
                bar.reach(round(sum(map(share_done, folders)), 2))

        thread = threading.Thread(target=look, daemon=True)
        if bar.is_shown:
            thread.start()
        try:
            yield
        finally:
            over.set()
            if bar.is_shown:
                thread.join()
                bar.reach(round(sum(map(share_done, folders)), 2))
