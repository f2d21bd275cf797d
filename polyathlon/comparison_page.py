"""The page of a comparison: Markdown, a table as CSV, a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polyathlon.envs.errors import UsageError

from .archives import write_atomically
from .comparison_data import judge_of
from .comparison_results import COUNTED, SCORE, Results, Row
from .statistics import CONFIDENCE
from .warm_starts import imitated_said

FEWEST_FOR_A_CLAIM = 8
HEIGHT, WIDTH = 2.9, 4.2


def write_page(results: Results, folder: Path) -> Path:
    """Write comparison.md, comparison.csv and comparison.png.

    Returns:
        The path of the page.

    Raises:
        UsageError: the folder cannot be written.
    """
    page = folder / "comparison.md"
    try:
        write_atomically(folder / "comparison.csv", table(results))
        draw(results, folder / "comparison.png")
        write_atomically(page, markdown(results))
    except OSError as error:
        raise UsageError(f"the page {page} cannot be written: {error.strerror or error}") from error
    return page


def markdown(results: Results) -> str:
    """Return the page."""
    rows, unit = results.rows(), results.setting.unit
    heads = ["name", "score", f"difference to {results.names[0]}", "verdict"]
    body = [[r.name, str(r.score), _or_dash(r.difference), r.verdict or "–"] for r in rows]
    if results.threshold is not None:
        heads.append(_reach_head(results))
        body = [[*cells, _reached(r, results.seeds)] for cells, r in zip(body, rows)]
    blocks = [
        f"# {', '.join(results.names)} on {results.setting.env}",
        _setting(results),
        grid(heads, body),
        _how_to_read(results),
        f"![Final scores, and curves over {unit}](comparison.png)",
        "## What it cost",
        _costs(rows, _counts_of(results, rows)),
        _costs_said(results, rows),
    ]
    return "\n\n".join(blocks) + "\n"


COUNTED_HEADS = dict(zip(COUNTED, ("records read", "answers written", "judge calls"), strict=True))


def _counts_of(results: Results, rows: Sequence[Row]) -> str:
    """Return what agents finish: answers of language agents, episodes of others."""
    if all(row.counted for row in rows):
        return "completions"
    return "episodes" if results.setting.model is None else "completions or episodes"


def _costs_said(results: Results, rows: Sequence[Row]) -> str:
    token = "" if _counts_of(results, rows) == "episodes" else " A step is a token for recipes."
    return f"Means over seeds.{token} Seconds are those of training and scoring together." + _counted_said(rows)


def plain_number(value: float) -> str:
    """Return a number of three digits, or of all before the point where there are more."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _costs(rows: Sequence[Row], finished: str) -> str:
    """Return the table of what each name took, records and judged answers among it where a name reads records."""
    counted = COUNTED if any(r.counted.get("records") for r in rows) else ()
    heads = [finished] if not counted else [COUNTED_HEADS[key] for key in counted]
    costs = [
        [
            r.name,
            *([f"{r.counted[key]:g}" if key in r.counted else "–" for key in counted] or [f"{r.completions:g}"]),
            f"{r.steps:,.0f}",
            plain_number(r.seconds.estimate),
            _memory(r),
        ]
        for r in rows
    ]
    return grid(["name", *heads, "steps", "seconds", "peak memory, MB"], costs)


def _counted_said(rows: Sequence[Row]) -> str:
    if not any(r.counted.get("records") for r in rows):
        return ""
    return (
        " Judge calls are written answers whose reward the method reads, and pairs that a judge of its own compares; what judging the "
        "records cost stands in no count, for it was paid when they were written."
    )


def _data_said(results: Results) -> list[str]:
    """Return what is said of data and judge."""
    shared = results.setting.shared
    if shared is None:
        return []
    said = []
    if shared.source is not None:
        source = shared.source if isinstance(shared.source, str) else shared.source["source"]
        of = f": {shared.kind}, {shared.learnt:,} to learn from and {shared.held:,} held out" if shared.kind else ""
        said.append(f"Data: `{source}`{of}")
    return [*said, f"Judge: {judge_of(results.setting.env, shared)}"]


def _length_said(results: Results) -> str:
    """Return how long each run is."""
    s = results.setting
    lengths = [] if s.length is None else [f"{s.length:,} {s.unit}"]
    if s.shared is not None and s.shared.records is not None:
        lengths = [f"{s.shared.records:,} records", *(f"{each} of a recipe that reads none" for each in lengths)]
    if not lengths:
        lengths = ["as long as it is" if results.seed_list else "as long as its file of hyper-parameters says"]
    return ", ".join(lengths)


def _setting(results: Results) -> str:
    s = results.setting
    options = {**s.env_kwargs, **{f"agent {k}": v for k, v in s.agent_kwargs.items()}, **s.wrapper_kwargs}
    said = [
        f"Environment: `{s.env}`" + (f" with {', '.join(f'{k} {v!r}' for k, v in options.items())}" if options else "")
    ]
    seeds = ", ".join(f"{results.seed_of(number):,}" for number in range(min(results.seeds, 2)))
    said += _data_said(results)
    said.append(
        f"Each run: {_length_said(results)}; {results.seeds} seeds ({seeds}{', ...' if results.seeds > 2 else ''})"
    )
    if s.model is not None:
        begin = f"after the imitation of {imitated_said(s.warm_start)}" if s.warm_start else "as it was made"
        said.append(f"Model: `{s.model}`, {begin}; the runs of a seed start from the same weights")
    asked = "answers to held-out prompts" if s.asks_held_out else "fresh episodes"
    said.append(f"Score: mean return over {s.episodes:,} {asked}, the same for all names of a seed")
    return "\n".join(f"- {line}" for line in said)


def _how_to_read(results: Results) -> str:
    said = (
        f"Means over {results.seeds} seeds with t-intervals of {CONFIDENCE:.0%}; differences are paired by seed. A name is better or worse where "
        "the interval of its difference leaves out zero. That it is not shown does not mean that two names are equal."
    )
    few = f" {results.seeds} seeds show large differences alone; a claim needs {FEWEST_FOR_A_CLAIM}."
    if results.setting.unit == "steps" and SCORE in results.shown():
        window = results.setting.agent_kwargs.get("stats_window_size", 100)
        said += (
            f" The score in training is the mean return of the last {window} episodes, or of all so far while there are fewer, and trails behind "
            "the agent of the moment."
        )
    return said + (few if results.seeds < FEWEST_FOR_A_CLAIM else "")


def _reach_head(results: Results) -> str:
    if results.threshold is None:
        return f"{results.setting.unit} to a threshold"
    said = "a score in training of" if results.setting.unit == "steps" else "a score of"
    return f"{results.setting.unit} to {said} {plain_number(results.threshold)}"


def _reached(row: Row, seeds: int) -> str:
    if not row.has_curve:
        return "–"  # a recipe of records plays nothing while it learns
    return str(row.reached) if row.reached is not None else f"{row.number_reached} of {seeds} seeds reached it"


def _memory(row: Row) -> str:
    return "–" if row.memory_mb is None else f"{row.memory_mb.estimate:.0f}"


def _or_dash(value: object) -> str:
    return "–" if value is None else str(value)


def grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def table(results: Results) -> str:
    """Return one line a run, as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    has_data = any(outcome.counted.get("records") for outcome in results.outcomes)
    counted = COUNTED if has_data else ()
    writer.writerow(["name", "seed", "score", "completions", "steps", "reached", *counted, "seconds", "memory_mb"])
    for outcome in results.outcomes:
        reached = None if results.threshold is None else outcome.reached(results.threshold)
        counts = [outcome.completions, outcome.steps, "" if reached is None else f"{reached:g}"]
        counts += [outcome.counted.get(key, "") for key in counted]
        costs = [outcome.seconds, outcome.memory_mb]
        writer.writerow([outcome.name, results.seed_of(outcome.number), repr(outcome.score), *counts, *costs])
    return text.getvalue()


COLOURS = 10  # in matplotlib's cycle; names beyond them get dashed lines
MOST_BANDS = 6  # more of them lie over each other, and nothing can be seen


def _line(number: int) -> dict[str, str]:
    return {"color": f"C{number % COLOURS}", "ls": ("-", "--", ":", "-.")[number // COLOURS % 4]}


def draw(results: Results, path: Path) -> None:
    """Draw the final scores with their intervals, and every curve as a mean, with its band where the names are few."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = results.shown()
    columns = min(3, 1 + len(shown))
    lines = -(-(1 + len(shown)) // columns)
    figure = Figure(figsize=(WIDTH * columns, HEIGHT * lines + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    _draw_scores(results, axes[0])
    for axis, what in zip(axes[1:], shown, strict=False):
        _draw_curves(results, axis, what)
    for axis in axes[1 + len(shown) :]:
        axis.axis("off")
    handles = [axes[0].plot([], [], **_line(i), label=name)[0] for i, name in enumerate(results.names)]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 6), frameon=False)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _draw_scores(results: Results, axis: Any) -> None:
    rows = results.rows()
    for i, row in enumerate(rows):
        y, score = len(rows) - 1 - i, row.score
        axis.plot([score.low, score.high], [y, y], **_line(i), lw=2)
        axis.plot(score.estimate, y, "o", color=f"C{i}")
        each = [run.score for run in results.of(row.name)]
        axis.plot(each, [y - 0.18] * len(each), "|", color=f"C{i}", alpha=0.6)
    axis.set(
        yticks=range(len(rows)), yticklabels=[row.name for row in reversed(rows)], title="final score on fresh episodes"
    )
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.grid(axis="x", alpha=0.3)


def _draw_curves(results: Results, axis: Any, what: str) -> None:
    for name, (x, mean, low, high) in results.bands(what).items():
        line = _line(results.names.index(name))
        axis.plot(x, mean, **line, marker="o" if len(x) < 3 else None)
        if len(results.names) <= MOST_BANDS:
            axis.fill_between(x, low, high, color=line["color"], alpha=0.18, lw=0)
    if what == SCORE and results.threshold is not None:
        axis.axhline(results.threshold, color="0.6", lw=0.8, ls="--")
    axis.set(xlabel=results.setting.unit, title="score in training" if what == SCORE else what)
    axis.ticklabel_format(useOffset=False)  # curves that hardly move say where they are
    axis.grid(alpha=0.3)
