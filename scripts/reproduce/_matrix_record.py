"""The runs that the page of the matrix is written from, kept in its matrix.json, so that a fresh clone adds to the page."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _claim import REPOSITORY
from _matrix_cells import all_cells

SOURCES = ("agents", "envs", "wrappers", "polyathlon", "scripts/reproduce")
Outcome = dict[str, Any]


def source_commit() -> str:
    """Return the short commit of the sources, with "+changes" where what runs is in no commit."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", *SOURCES)
    return f"{git('rev-parse', '--short', 'HEAD') or 'unknown'}{'+changes' if changed else ''}"


def entries_of(outcomes: Mapping[Any, Outcome]) -> list[dict[str, Any]]:
    """Return runs as matrix.json keeps them: the outcome of each, with what decides it but is not in it."""
    return [
        {
            **outcome,
            "cell": str(job.cell),
            "seed": job.seed,
            "limit": job.limit,
            "shuffled": job.shuffled,
            "key": outcome.get("key", job.cell.key(job.limit)),
        }
        for job, outcome in outcomes.items()
    ]


def recorded(folder: Path) -> dict[Any, Outcome]:
    """Read the runs of a page that were made under the settings of now; those under other settings are left out.

    Args:
        folder: of the page.

    Returns:
        job -> outcome.

    Raises:
        UsageError: matrix.json is not readable.
    """
    from _matrix import Job

    from polyathlon.envs.errors import UsageError

    path = folder / "matrix.json"
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text()).get("runs", [])
    except (ValueError, AttributeError) as error:
        message = f"{path} is no page of the matrix ({error}): put it back, or name another folder with --out"
        raise UsageError(message) from None
    cells = {str(cell): cell for cell in all_cells()}
    found = {}
    for entry in entries:
        cell = cells.get(entry["cell"])
        if cell is not None and cell.key(entry["limit"]) == entry["key"]:
            inner = {key: value for key, value in entry.items() if key != "limit"}
            found[Job(cell, entry["seed"], entry["limit"], entry["shuffled"])] = inner
    return found
