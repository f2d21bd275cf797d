"""Comparisons over several tasks: normalised scores, interquartile means, performance profiles, on one page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyathlon.envs.errors import UsageError

from .archives import write_atomically
from .comparison_page import FEWEST_FOR_A_CLAIM, grid
from .comparison_results import Results, plain_name
from .comparison_runs import SEED_DISTANCE
from .statistics import (
    CONFIDENCE,
    Interval,
    Verdict,
    interquartile_mean,
    optimality_gap,
    paired_difference,
    probability_of_improvement,
    profile_band,
    stratified_interval,
    verdict,
)

THRESHOLDS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class SuiteRow:
    """What is said of one name over all tasks.

    Attributes:
        name: of the agent or recipe.
        middle: interquartile mean of the normalised scores.
        gap: mean distance of a run to the best run of its task.
        improvement: chance that a run beats one of the first name; None for the first.
        difference: of the normalised scores to the first name, paired by seed; None for the first.
        verdict: "better", "worse" or "not shown".
    """

    name: str
    middle: Interval
    gap: Interval
    improvement: float | None
    difference: Interval | None
    verdict: Verdict | None


@dataclass(frozen=True)
class SuiteResults:
    """The results of several tasks.

    Attributes:
        results: of each task; names and seeds are the same in all.
    """

    results: tuple[Results, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Agents and recipes, in the order in which they were given."""
        return self.results[0].names

    @property
    def tasks(self) -> list[str]:
        """The environments."""
        return [each.setting.env for each in self.results]

    def scores(self, name: str) -> NDArray[Any]:
        """Return the final scores of a name, [S, T] by seed and task."""
        return np.array([[run.score for run in each.of(name)] for each in self.results]).T

    def ranges(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the lowest and the highest final score of any run on each task, [T] each."""
        every = np.stack([self.scores(name) for name in self.names])
        return every.min((0, 1)), every.max((0, 1))

    def normalised(self, name: str) -> NDArray[Any]:
        """Return the scores of a name between 0, the lowest run of the task, and 1, the highest; 1 where all are equal."""
        low, high = self.ranges()
        span = np.where(high > low, high - low, 1.0)
        return np.where(high > low, (self.scores(name) - low) / span, 1.0)

    def rows(self) -> list[SuiteRow]:
        """Return what is said of each name."""
        first = self.normalised(self.names[0])
        return [self._row(name, first, is_first=i == 0) for i, name in enumerate(self.names)]

    def _row(self, name: str, first: NDArray[Any], is_first: bool) -> SuiteRow:
        scores = self.normalised(name)
        difference = None if is_first else paired_difference(scores, first)
        return SuiteRow(
            name,
            stratified_interval(scores, interquartile_mean),
            stratified_interval(scores, optimality_gap),
            None if is_first else float(probability_of_improvement(scores, first)),
            difference,
            None if difference is None else verdict(difference),
        )

    def lines(self) -> list[str]:
        """Return a line a name, for a terminal."""
        width = max(map(len, self.names))
        found = []
        for row in self.rows():
            against = "" if row.difference is None else f"  difference {row.difference}: {row.verdict}"
            found.append(f"{row.name.ljust(width)}  interquartile mean {row.middle}{against}")
        return found


@dataclass(frozen=True)
class SuiteComparison:
    """What a comparison over several tasks found.

    Attributes:
        results: scores and what follows from them.
        page: the page in Markdown; its table is beside it as CSV, its picture as PNG, each task's own page in its folder.
    """

    results: SuiteResults
    page: Path

    def __str__(self) -> str:
        return "\n".join(self.results.lines())


def write_suite_page(results: SuiteResults, folder: Path) -> Path:
    """Write comparison.md, comparison.csv and comparison.png of several tasks.

    Raises:
        UsageError: the folder cannot be written.
    """
    page = folder / "comparison.md"
    try:
        write_atomically(folder / "comparison.csv", suite_table(results))
        draw_suite(results, folder / "comparison.png")
        write_atomically(page, suite_markdown(results))
    except OSError as error:
        raise UsageError(f"the page {page} cannot be written: {error.strerror or error}") from error
    return page


def suite_markdown(results: SuiteResults) -> str:
    """Return the page."""
    first, rows, seeds = results.names[0], results.rows(), results.results[0].seeds
    heads = [
        "name",
        "interquartile mean",
        "optimality gap",
        f"chance to beat {first}",
        f"difference to {first}",
        "verdict",
    ]
    body = [
        [r.name, str(r.middle), str(r.gap), _share(r.improvement), _dash(r.difference), r.verdict or "–"] for r in rows
    ]
    tasks = [
        [f"[{env}]({plain_name(env)}/comparison.md)", *_each(result)]
        for env, result in zip(results.tasks, results.results)
    ]
    few = (
        f" {seeds} seeds show large differences alone; a claim needs {FEWEST_FOR_A_CLAIM}."
        if seeds < FEWEST_FOR_A_CLAIM
        else ""
    )
    said = (
        f"Scores are final ones on fresh episodes, normalised task by task: 0 is the lowest run of all names, 1 the highest, so they mean "
        f"nothing outside this page. The interquartile mean and the optimality gap (the mean distance to 1) have stratified bootstrap intervals of {CONFIDENCE:.0%} "
        f"over {seeds} seeds a task (Agarwal et al. 2021), which are too narrow below some ten seeds; the verdict goes by the paired difference, "
        f"whose t-interval averages tasks within a seed.{few}"
    )
    blocks = [
        f"# {', '.join(results.names)} on {len(results.tasks)} tasks",
        grid(heads, body),
        said,
        "![Performance profiles: the share of runs above each normalised score, with pointwise bands](comparison.png)",
        "## By task",
        grid(["task", *results.names], tasks),
    ]
    return "\n\n".join(blocks) + "\n"


def _each(result: Results) -> list[str]:
    """Return the score of each name on a task, with its verdict."""
    return [f"{row.score}{'' if row.verdict is None else f' ({row.verdict})'}" for row in result.rows()]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _dash(value: object) -> str:
    return "–" if value is None else str(value)


def suite_table(results: SuiteResults) -> str:
    """Return one line a run, as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "task", "seed", "score", "normalised"])
    for name in results.names:
        scores, normalised = results.scores(name), results.normalised(name)
        for t, task in enumerate(results.tasks):
            for number in range(len(scores)):
                values = [repr(float(scores[number, t])), repr(float(normalised[number, t]))]
                writer.writerow([name, task, SEED_DISTANCE * number, *values])
    return text.getvalue()


def draw_suite(results: SuiteResults, path: Path) -> None:
    """Draw the performance profiles, and the interquartile means with their intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    rows = results.rows()
    for i, row in enumerate(rows):
        share, low, high = profile_band(results.normalised(row.name), THRESHOLDS)
        left.plot(THRESHOLDS, share, color=f"C{i}", label=row.name)
        left.fill_between(THRESHOLDS, low, high, color=f"C{i}", alpha=0.18, lw=0)
        y = len(rows) - 1 - i
        right.plot([row.middle.low, row.middle.high], [y, y], color=f"C{i}", lw=2)
        right.plot(row.middle.estimate, y, "o", color=f"C{i}")
    left.set(xlabel="normalised score", ylabel="share of runs above it", title="performance profiles")
    right.set(yticks=range(len(rows)), yticklabels=[row.name for row in reversed(rows)], title="interquartile mean")
    right.set_ylim(-0.6, len(rows) - 0.4)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    left.legend(frameon=False)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def refuse_twins(tasks: Sequence[str]) -> None:
    """Refuse tasks that are given twice or would share a folder.

    Raises:
        UsageError: naming them.
    """
    folders = [plain_name(task) for task in tasks]
    for task, folder in zip(tasks, folders):
        if folders.count(folder) > 1:
            raise UsageError(f"{task} is given twice among {list(tasks)}, or shares a folder with another one")
