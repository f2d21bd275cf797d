"""What the runs of a comparison found: scores, paired differences, curves, and what they cost."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyathlon.envs.errors import UsageError

from .comparison_runs import SEED_DISTANCE, Setting, acts_in_words
from .plotting import common_places, reward_column
from .run_folder import RunFolder
from .statistics import Interval, Verdict, curve_band, paired_difference, t_interval, verdict

SCORE = "score"
COLUMNS = {  # of the log of a language agent -> what the page calls it
    "train/entropy": "entropy of a token",
    "rollout/ep_len_mean": "tokens of an answer",
    "train/groups_without_signal": "share of groups without signal",
    "rollout/start_kl": "divergence from the start, per token",
    "holdout/accuracy": "accuracy on held-out pairs",
    "holdout/margin": "margin of held-out pairs",
}

COUNTED = ("records", "written", "judged")
Curve = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Outcome:
    """One run.

    Attributes:
        name: of the agent or recipe.
        number: of its seed.
        score: mean return over fresh episodes.
        steps, completions: how many it took.
        seconds, memory_mb: what it cost; NaN for the memory of a run that nobody measured.
        curves: by what they show, (completions or steps, values).
        counted: of a language agent "records" that it read, answers that it has "written", and calls of judges ("judged").
    """

    name: str
    number: int
    score: float
    steps: int
    completions: int
    seconds: float
    memory_mb: float
    curves: dict[str, Curve]
    counted: dict[str, int] = field(default_factory=dict)

    def reached(self, threshold: float) -> float | None:
        """Return where the curve of the score first stands at a threshold; None where it never does."""
        if SCORE not in self.curves:
            return None
        x, y = self.curves[SCORE]
        there = np.flatnonzero(y >= threshold)
        return float(x[there[0]]) if len(there) else None


@dataclass(frozen=True)
class Row:
    """What is said of one name.

    Attributes:
        name: of the agent or recipe.
        score: mean over seeds.
        difference: to the first name, paired by seed; None for the first.
        verdict: "better", "worse" or "not shown".
        reached: completions or steps to the threshold where every seed reached it; None otherwise.
        number_reached: seeds that reached it.
        seconds, memory_mb, completions, steps: means over seeds; None for memory that nobody measured.
        counted: means over seeds of what `Outcome.counted` has.
        has_curve: whether scores were logged in training.
    """

    name: str
    score: Interval
    difference: Interval | None
    verdict: Verdict | None
    reached: Interval | None
    number_reached: int
    seconds: Interval
    memory_mb: Interval | None
    completions: float
    steps: float
    counted: dict[str, float] = field(default_factory=dict)
    has_curve: bool = True


@dataclass(frozen=True)
class Results:
    """Everything that a page says.

    Attributes:
        setting: what the runs share.
        names: in the order in which they were given.
        seeds: their number.
        outcomes: of every run.
        threshold: score whose first reaching is counted; None where no score was logged.
        seed_list: seeds of runs that a comparison did not start itself; None: its own.
    """

    setting: Setting
    names: tuple[str, ...]
    seeds: int
    outcomes: tuple[Outcome, ...]
    threshold: float | None
    seed_list: tuple[int, ...] | None = None

    def seed_of(self, number: int) -> int:
        """Return the seed of the runs of a number."""
        return SEED_DISTANCE * number if self.seed_list is None else self.seed_list[number]

    def of(self, name: str) -> list[Outcome]:
        """Return the runs of a name, seed by seed."""
        return sorted((o for o in self.outcomes if o.name == name), key=lambda outcome: outcome.number)

    def rows(self) -> list[Row]:
        """Return what is said of each name."""
        first = [outcome.score for outcome in self.of(self.names[0])]
        return [self._row(name, first, is_first=i == 0) for i, name in enumerate(self.names)]

    def _row(self, name: str, first: Sequence[float], is_first: bool) -> Row:
        runs = self.of(name)

        def mean(value: Callable[[Outcome], float]) -> Interval:
            return t_interval([value(run) for run in runs])

        difference = None if is_first else paired_difference([run.score for run in runs], first)
        reached = [] if self.threshold is None else [run.reached(self.threshold) for run in runs]
        known = [x for x in reached if x is not None]
        return Row(
            name,
            mean(lambda run: run.score),
            difference,
            None if difference is None else verdict(difference),
            t_interval(known) if len(known) == len(runs) else None,
            len(known),
            mean(lambda run: run.seconds),
            mean(lambda run: run.memory_mb) if all(np.isfinite(run.memory_mb) for run in runs) else None,
            mean(lambda run: run.completions).estimate,
            mean(lambda run: run.steps).estimate,
            {key: float(np.mean([run.counted[key] for run in runs])) for key in _shared_keys(runs)},
            any(SCORE in run.curves for run in runs),
        )

    def bands(self, shown: str) -> dict[str, tuple[NDArray[Any], ...]]:
        """Return for each name that has such a curve in every run (places, mean, low, high), at common places."""
        found: dict[str, tuple[NDArray[Any], ...]] = {}
        for name in self.names:
            curves = [run.curves[shown] for run in self.of(name) if shown in run.curves]
            if len(curves) == self.seeds:
                x = common_places([c[0] for c in curves])
                if len(x):
                    found[name] = (x, *curve_band([np.interp(x, *c) for c in curves]))
        return found

    def shown(self) -> list[str]:
        """Return what curves there are."""
        names = list(dict.fromkeys(name for outcome in self.outcomes for name in outcome.curves))
        return [name for name in (SCORE, *COLUMNS.values()) if name in names]

    def lines(self) -> list[str]:
        """Return a line a name, for a terminal."""
        width = max(map(len, self.names))
        found = []
        for row in self.rows():
            against = "" if row.difference is None else f"  difference {row.difference}: {row.verdict}"
            found.append(f"{row.name.ljust(width)}  {row.score}{against}")
        return found


def _shared_keys(runs: Sequence[Outcome]) -> list[str]:
    """Return what was counted in every run."""
    return [key for key in COUNTED if all(key in run.counted for run in runs)]


def read_results(folder: Path, setting: Setting, names: Sequence[str], seeds: int, threshold: float | None) -> Results:
    """Read the runs of a comparison.

    Raises:
        UsageError: one is missing or damaged.
    """
    outcomes = tuple(
        read_outcome(run_folder_of(folder, name, number), name, number, setting.unit)
        for name in names
        for number in range(seeds)
    )
    chosen = half_way(outcomes) if threshold is None else threshold
    return Results(setting, tuple(names), seeds, outcomes, chosen)


def read_outcome(folder: Path, name: str, number: int, unit: str) -> Outcome:
    """Read one run.

    Raises:
        UsageError: it is not finished, or damaged.
    """
    path = folder / "result.json"
    try:
        found = json.loads(path.read_text())
        values = {key: found[key] for key in ("score", "steps", "completions", "seconds", "memory_mb")}
        values["counted"] = {key: int(found[key]) for key in COUNTED if key in found}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be read ({error}): remove it, and the run goes on") from error
    return Outcome(name, number, curves=read_curves(RunFolder(folder), name, unit), **values)


def read_curves(folder: RunFolder, name: str, unit: str) -> dict[str, Curve]:
    """Read the curves of a run from its log: of the score, and of what a language agent tells of itself."""
    records = folder.progress() if folder.progress_path.exists() and folder.progress_path.stat().st_size else []
    reward = reward_column(key for record in records for key in record)
    columns = {} if reward is None else {reward: SCORE}
    if acts_in_words(name):
        columns |= COLUMNS
    place = "time/episodes" if unit == "completions" else "step"
    found = {}
    for column, shown in columns.items():
        points = [(r[place], r[column]) for r in records if place in r and np.isfinite(r.get(column, np.nan))]
        if points:
            x, y = np.array(points, float).T
            found[shown] = (x, y)
    return found


def half_way(outcomes: Sequence[Outcome]) -> float | None:
    """Return the score half way from the mean of the first logged ones to the best name's mean of the last; None without any."""
    curves = [(outcome.name, outcome.curves[SCORE][1]) for outcome in outcomes if SCORE in outcome.curves]
    if not curves:
        return None
    last: dict[str, list[float]] = {}
    for name, values in curves:
        last.setdefault(name, []).append(float(values[-1]))
    first = float(np.mean([values[0] for _, values in curves]))
    best = max(float(np.mean(values)) for values in last.values())
    return first + (best - first) / 2


def run_folder_of(folder: Path, name: str, number: int) -> Path:
    """Return the folder of the run of a name and the number of a seed."""
    return folder / "runs" / f"{plain_name(name)}-seed{number}"


def plain_name(name: str) -> str:
    """Return a name as a folder can have it."""
    return re.sub(r"[^\w.-]+", "-", name)
