"""What the runs of the matrix show, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from _matrix_cells import LIMIT, Cell, all_cells, seeds_of

from polyathlon.statistics import Interval, holm_confidences, paired_difference, t_interval, t_test, verdict

HALF = 0.5
QUICK_STATUSES = ("rose", "did not rise")  # of one seed


@dataclass(frozen=True)
class Row:
    """A cell with what was found.

    Attributes:
        cell: the cell.
        status: "holds", "does not hold", "rose" or "did not rise" (one seed, no claim), "constant reward", "not installed", "failed"
            or "not run".
        reason: why there is nothing to judge; empty otherwise.
        random, start, trained: mean returns over seeds.
        best: return of the best known play.
        best_by: who plays it.
        gain: trained - start over seeds with the interval at Holm's level; None with one seed.
        curve: (step, mean return) over seeds.
        steps: of a run.
        seconds: CPU seconds of a run.
        seeds: number of seeds.
        was_cut: runs that the CPU seconds ended before their steps.
        control: gains with shuffled rewards, one a seed.
        commits: of the sources that ran.
    """

    cell: Cell
    status: str
    reason: str = ""
    random: float = float("nan")
    start: float = float("nan")
    trained: float = float("nan")
    best: float = float("nan")
    best_by: str = ""
    gain: Interval | None = None
    curve: list[tuple[float, float]] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    seeds: int = 0
    was_cut: int = 0
    control: tuple[float, ...] = ()
    commits: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Share of the way from the start to the best known play that training went; NaN where the start is no worse than it."""
        way = self.best - self.start
        return (self.trained - self.start) / way if way > 0 else float("nan")

    @property
    def is_flagged(self) -> bool:
        """Whether the single run with shuffled rewards gained half of what training with true rewards did, and so is repeated.

        Who imitates demonstrations gains by them whatever the rewards are; that is no fault of the task.
        """
        gained = self.trained - self.start
        return not self.cell.is_imitation and len(self.control) == 1 and gained > 0 and self.control[0] > HALF * gained

    @property
    def gains_without_rewards(self) -> bool:
        """Whether the repeated runs with shuffled rewards gained too, by more than half: such a gain is not that of the rewards."""
        again = self.control[1:]
        if len(again) < 2 or self.cell.is_imitation:
            return False
        return t_interval(again).low > 0 and float(np.mean(again)) > HALF * (self.trained - self.start)

    @property
    def words(self) -> str:
        """What was found, in a line."""
        if not np.isfinite(self.trained):
            return f"{self.cell}: {self.status}{f': {self.reason}' if self.reason else ''}"
        numbers = (
            f"random {self.random:.4g}, start {self.start:.4g}, trained {self.trained:.4g}, best known {self.best:.4g}"
        )
        return f"{self.cell}: {self.status} ({numbers})"


@dataclass(frozen=True)
class Judged:
    """All rows, whether one seed was run alone, and the gain of the controls."""

    rows: list[Row]
    is_quick: bool
    control: Interval | None = None

    @property
    def headline(self) -> str:
        """How many cells hold, in a line."""
        total = len(self.rows)
        held = sum(row.status in ("holds", "rose") for row in self.rows)
        half = sum(row.status in ("holds", "rose") and row.share >= HALF for row in self.rows)
        idle = sum(row.status == "not run" for row in self.rows)
        waiting = f" {idle} were not run." if idle else ""
        if self.is_quick:
            return f"Quick: one seed, not a claim. {held} of {total} cells rose above their start and random play, {half} of them half of the way to the best known play.{waiting}"
        rows = [row for row in self.rows if row.status == "holds"]
        half = sum(row.share >= HALF for row in rows)
        said = f"{len(rows)} of {total} cells hold, {half} of them reach half of the way from their start to the best known play."
        quick = [row for row in self.rows if row.status in QUICK_STATUSES]
        if quick:
            rose = sum(row.status == "rose" for row in quick)
            said += f" Not a claim, one seed: of {len(quick)} others {rose} rose above their start and random play."
        said += waiting
        if self.control is not None:
            found = "no gain" if self.control.low <= 0 else "a gain, so the table is void"
            lost = ", but a loss" if self.control.high < 0 else ""  # noise moves an agent away from its start
            said += f" Shuffled rewards: {found}{lost} ({self.control})."
        return said


def judge_page(outcomes: Mapping[Any, dict[str, Any]], best: Mapping[str, tuple[float, str]]) -> Judged:
    """Judge all cells of the page: those with runs of all seeds by the claim, the others by their one quick run.

    Holm's levels are over all 48 cells, those without all seeds counting as p = 1, so that a page in parts is not easier.

    Args:
        outcomes: job -> outcome, of quick runs and of the claim's.
        best: family -> (return of the best known play, who plays it).
    """
    from dataclasses import replace

    claimed = {job: outcome for job, outcome in outcomes.items() if job.limit == LIMIT}
    quick = judge({j: o for j, o in outcomes.items() if j.limit != LIMIT}, best, True, all_cells())
    seeds = {cell: {j.seed for j in claimed if j.cell == cell and not j.shuffled} for cell in all_cells()}
    whole = {cell for cell, found in seeds.items() if set(seeds_of()) <= found}
    if not whole:
        return quick
    judged = judge({j: o for j, o in claimed.items() if j.cell in whole}, best, False, all_cells())
    rows = [row if row.cell in whole else other for row, other in zip(judged.rows, quick.rows, strict=True)]
    return replace(judged, rows=rows)


def judge(
    outcomes: Mapping[Any, dict[str, Any]],
    best: Mapping[str, tuple[float, str]],
    is_quick: bool,
    cells: Sequence[Cell] | None = None,
) -> Judged:
    """Judge cells by their runs; every one of them stays in the table.

    Args:
        outcomes: job -> outcome.
        best: family -> (return of the best known play, who plays it).
        is_quick: one seed, no claim.
        cells: the cells of the table, in order; None means those that were run.
    """
    if cells is None:
        cells = [cell for cell in all_cells() if any(job.cell == cell for job in outcomes)]
    rows = [_row(cell, outcomes, best.get(cell.family, (float("nan"), "")), is_quick) for cell in cells]
    if is_quick:
        return Judged(rows, True)
    judged = with_holm(rows, outcomes)
    alone = [row for row in judged if not row.cell.is_imitation]  # demonstrations teach whatever the rewards are
    shares = [c / abs(r.best - r.start) for r in alone for c in r.control[:1] if abs(r.best - r.start) > 0]
    return Judged(judged, False, t_interval(shares) if len(shares) > 1 else None)


def _done(cell: Cell, outcomes: Mapping[Any, dict[str, Any]], shuffled: bool) -> list[dict[str, Any]]:
    return [o for job, o in outcomes.items() if job.cell == cell and job.shuffled == shuffled and o["status"] == "done"]


def _row(cell: Cell, outcomes: Mapping[Any, dict[str, Any]], best: tuple[float, str], is_quick: bool) -> Row:
    mine = [outcome for job, outcome in outcomes.items() if job.cell == cell and not job.shuffled]
    done = _done(cell, outcomes, False)
    if len(done) < len(mine) or not done:
        other = next((outcome for outcome in mine if outcome["status"] != "done"), {"status": "not run"})
        known = {key: float(other[key]) for key in ("random", "start") if key in other}
        return Row(cell, other["status"], other.get("reason", ""), best=best[0], best_by=best[1], **known)
    means = {name: float(np.mean([one[name] for one in done])) for name in ("random", "start", "trained", "seconds")}
    length = min(len(one["curve"]) for one in done)
    curve = [tuple(np.mean([one["curve"][k] for one in done], 0).tolist()) for k in range(length)]
    rose = means["trained"] > max(means["start"], means["random"])
    control = tuple(one["trained"] - one["start"] for one in _done(cell, outcomes, True))
    status = ("rose" if rose else "did not rise") if is_quick else "does not hold"
    return Row(
        cell,
        status,
        best=best[0],
        best_by=best[1],
        curve=curve,  # type: ignore[arg-type]
        steps=int(np.mean([one["steps"] for one in done])),
        seeds=len(done),
        was_cut=sum(one["cut"] for one in done),
        control=control,
        commits=tuple(sorted({one["commit"] for one in done if "commit" in one})),
        **means,
    )


def with_holm(rows: list[Row], outcomes: Mapping[Any, dict[str, Any]], total: int | None = None) -> list[Row]:
    """Judge the gains of all cells together: Holm's levels over all cells of the matrix, those without runs counting as p = 1.

    Args:
        rows: as they were read.
        outcomes: job -> outcome.
        total: number of cells of the family of tests; None is that of the matrix.
    """
    from dataclasses import replace

    runs = {row.cell: _done(row.cell, outcomes, False) for row in rows if row.seeds > 1}
    pairs = {c: ([r["trained"] for r in done], [r["start"] for r in done]) for c, done in runs.items()}
    p = [t_test(np.subtract(*pair)) for pair in pairs.values()]
    rest = (len(all_cells()) if total is None else total) - len(p)
    levels = dict(zip(pairs, holm_confidences([*p, *[1.0] * rest]))) if p else {}
    found = []
    for row in rows:
        if row.cell not in pairs:
            found.append(row)
            continue
        gain = paired_difference(*pairs[row.cell], confidence=float(levels[row.cell]))
        holds = verdict(gain) == "better" and row.trained > row.random and not row.gains_without_rewards
        found.append(replace(row, gain=gain, status="holds" if holds else "does not hold"))
    return found
