"""The page of the matrix: a table of all cells, and of each a small curve with the command that makes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from _claim import REPOSITORY
from _matrix_cells import FAMILIES, KINDS, LIMIT, PROTOCOL, QUICK_EPISODES, QUICK_LIMIT, SEEDS, Cell
from _matrix_forgetting import words_of
from _matrix_judge import QUICK_STATUSES, Judged, Row
from _matrix_record import entries_of
from _matrix_run import SPOKEN_EPISODES
from _page import with_table
from _runs import versions

RECORD = REPOSITORY / "polyathlon" / "data" / "matrix.json"
WIDTH, HEIGHT, EDGE = 120, 36, 3
MARKS = {"holds": "✔", "rose": "▲", "does not hold": "✘", "did not rise": "▽"}


def write_page(
    judged: Judged,
    folder: Path,
    commit: str | None,
    outcomes: Mapping[Any, dict[str, Any]] | None = None,
    forgetting: dict[str, float] | None = None,
) -> Path:
    """Write matrix.md and matrix.json, the table of the folder's index, and, where these are the results of the repository, what `polyathlon info` reads.

    Args:
        judged: what was found.
        folder: where to.
        commit: of the cells' text; None where it is not committed.
        outcomes: job -> outcome; the runs that the next call goes on from.
        forgetting: what `_matrix_forgetting.forgetting` found; None leaves what the page says.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page, record = folder / "matrix.md", folder / "matrix.json"
    if forgetting is None and record.exists():
        forgetting = json.loads(record.read_text()).get("forgetting")
    text = text_of(judged, commit)
    page.write_text(text if forgetting is None else f"{text}\n{words_of(forgetting)}")
    content = {
        "forgetting": forgetting,
        "found": judged.headline,
        "quick": judged.is_quick,
        "cells": [_as_dict(row) for row in judged.rows],
    }
    runs = entries_of(outcomes or {})
    record.write_text(json.dumps({**content, "versions": versions(), "runs": runs}, indent=1))
    index = folder / "index.md"
    if index.exists():
        index.write_text(with_table(index.read_text(), folder))
        write_record(judged, RECORD)
    return page


def write_record(judged: Judged, path: Path) -> None:
    """Write which kinds of agent hold ("holds", by five seeds) or rose ("rose", by one) on which environment, for `polyathlon info`."""
    found: dict[str, dict[str, str]] = {}
    for row in judged.rows:
        found.setdefault(row.cell.task.env, {})[row.cell.kind] = row.status
    path.write_text(json.dumps({"cells": found}, indent=1) + "\n")


def text_of(judged: Judged, commit: str | None) -> str:
    """Return the page in Markdown."""
    has_quick = any(row.status in QUICK_STATUSES for row in judged.rows)
    protocols = [] if judged.is_quick else [_protocol(False)]
    protocols += [_protocol(True)] if has_quick or judged.is_quick else []
    lines = [
        "# The matrix: which agent learns where",
        "",
        f"**{judged.headline}**",
        "",
        f"{' '.join(protocols)}{f' The cells are those of commit {commit}.' if commit else ''} "
        "Random play draws actions evenly in the form that the agent acts in: points of a box, allowed choices, tokens. "
        "Share is the way from the start to the best known play that training went; beyond 100 % the agent plays better. Imitation: the agent has demonstrations by "
        "who plays best known among what it learns from, beside its own experience, so that its gain is not that of rewards alone "
        "(and its control with shuffled rewards is not counted). [What was tried](matrix_settings.md).",
        "",
        *_summary(judged),
        "",
        "| family | agent | | random | start | trained | best known | share | curve |",
        "|---|---|---|---|---|---|---|---|---|",
        *[_line(row) for row in judged.rows],
        "",
        "## Tasks",
        "",
        f"Agents that write are evaluated on at most {SPOKEN_EPISODES} episodes, {QUICK_EPISODES} with one seed.",
        "",
        "| family | environment | episodes of an evaluation | classic agents play | best known by |",
        "|---|---|---|---|---|",
        *[_task(name, judged) for name in FAMILIES if any(row.cell.family == name for row in judged.rows)],
        "",
        "## Commands",
        "",
    ]
    for row in judged.rows:
        lines += [f"- {row.cell}: `{row.cell.command}`{_notes(row)}"]
    made = ", ".join(f"{name} {version}" for name, version in versions().items() if name != "machine")
    word = " --quick" if judged.is_quick else ""
    lines += ["", f"Written by `polyathlon reproduce matrix{word}` ({made}; {versions()['machine']}).", ""]
    return "\n".join(lines)


def _protocol(is_quick: bool) -> str:
    if is_quick:
        return (
            f"▲ rose, ▽ did not, by one seed, **not a claim**: a cell rose when trained lies above its start and above random play, in "
            f"one run of at most {QUICK_LIMIT:g} CPU seconds with its evaluations, without a control."
        )
    return (
        f"{PROTOCOL} ✔ holds, ✘ does not, by {SEEDS} seeds drawn by the hash of the claim, each of at most {LIMIT:g} CPU seconds "
        "with its evaluations."
    )


def _summary(judged: Judged) -> list[str]:
    found = {row.cell: row for row in judged.rows}
    lines = [f"| | {' | '.join(KINDS)} |", f"|---|{'---|' * len(KINDS)}"]
    for family in FAMILIES:
        if any(row.cell.family == family for row in judged.rows):
            marks = [_mark(found.get(Cell(family, kind))) for kind in KINDS]
            lines.append(f"| {family} | {' | '.join(marks)} |")
    return lines


def _mark(row: Row | None) -> str:
    if row is None:
        return "·"
    share = f" {100 * row.share:.0f} %" if row.status in ("holds", "rose") and np.isfinite(row.share) else ""
    imitation = ", imitation" if row.cell.is_imitation else ""
    return f"{MARKS.get(row.status, row.status)}{share}{imitation}"


def _number(value: float) -> str:
    return "" if not np.isfinite(value) else f"{value:.4g}"


def _line(row: Row) -> str:
    numbers = [_number(value) for value in (row.random, row.start, row.trained, row.best)]
    share = "" if not np.isfinite(row.share) else f"{100 * row.share:.0f} %"
    curve = svg(row.curve) if len(row.curve) > 1 else row.reason
    parts = [row.cell.family, row.cell.kind, MARKS.get(row.status, row.status), *numbers, share, curve]
    return f"| {' | '.join(parts)} |"


def _task(name: str, judged: Judged) -> str:
    family = FAMILIES[name]
    options = family.words
    by = next((row.best_by for row in judged.rows if row.cell.family == name and row.best_by), "")
    quick = -(-min(family.episodes, QUICK_EPISODES) // family.rows) * family.rows  # whole shares of the rows
    episodes = f"{quick}" if judged.is_quick else f"{family.episodes} ({quick} with one seed)"
    play = "their likeliest action" if family.deterministic else "as they act in training"
    return f"| {name} | `{family.env}{f' {options}' if options else ''}` | {episodes} | {play} | {by} |"


def _notes(row: Row) -> str:
    if not row.steps:
        return f" ({row.status}{f': {row.reason}' if row.reason else ''})"
    said = [f"{row.steps:,} steps", f"{row.seconds:.0f} CPU seconds"]
    if row.was_cut:
        said.append(f"{row.was_cut} of {row.seeds} runs ended by the clock before their steps")
    if row.gain is not None:
        said.append(f"gain {row.gain} at {100 * row.gain.confidence:.2f} %")
    if row.control:
        said.append(f"shuffled rewards: {', '.join(f'{gain:+.3g}' for gain in row.control)}")
    if row.gains_without_rewards:
        said.append("does not hold, since shuffled rewards gain more than half as much")
    said += [f"commit {commit}" for commit in row.commits]
    return f" ({'; '.join(said)})"


def svg(curve: list[tuple[float, float]]) -> str:
    """Return a small curve as an inline picture; its ends are its least and greatest values."""
    x, y = np.array(curve, float).T
    wide, high = np.ptp(x) or 1.0, np.ptp(y) or 1.0
    points = " ".join(
        f"{EDGE + (WIDTH - 2 * EDGE) * (a - x.min()) / wide:.1f},{HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * (b - y.min()) / high:.1f}"
        for a, b in zip(x, y)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{y[0]:.3g} to {y[-1]:.3g}"><polyline points="{points}" fill="none" stroke="#4363d8" stroke-width="2"/></svg>'
    )


def _as_dict(row: Row) -> dict[str, Any]:
    gain = None if row.gain is None else asdict(row.gain)
    names = (
        "status",
        "reason",
        "random",
        "start",
        "trained",
        "best",
        "best_by",
        "steps",
        "seconds",
        "seeds",
        "was_cut",
    )
    plain = {name: getattr(row, name) for name in names}
    plain = {
        key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in plain.items()
    }
    return {
        "family": row.cell.family,
        "kind": row.cell.kind,
        "command": row.cell.command,
        **plain,
        "gain": gain,
        "curve": row.curve,
        "control": list(row.control),
        "commits": list(row.commits),
    }
