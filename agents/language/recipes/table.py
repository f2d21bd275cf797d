"""All methods as one table: what each puts where, in the words of its row."""

from __future__ import annotations

from collections.abc import Iterable

from polyathlon.agents.parts.wiring import Part, Schedule

from .records import Recipe

COLUMNS = ("method", "episodes", "rewards", "advantage", "weights", "loss", "regulariser", "outer")


def methods_markdown(rows: Iterable[Recipe]) -> str:
    """Return a table of rows, and their summaries with sources, in Markdown."""
    rows = tuple(rows)
    table = [COLUMNS, ("---",) * len(COLUMNS), *(cells(row) for row in rows)]
    listed = [f"- **{row.name}**: {row.summary}. {row.source}." for row in rows]
    return "\n".join(["| " + " | ".join(line) + " |" for line in table]) + "\n\n" + "\n".join(listed) + "\n"


def cells(row: Recipe) -> tuple[str, ...]:
    """Return what a row puts where; 1 and – stand for nothing."""
    weights = [short(part) for part in (*row.weights, *([row.keep] if row.keep else []))]
    loss = f"{short(row.loss)}, {row.aggregation}"
    regulariser = [f"{penalty.name} {_number(penalty.coefficient)} {short(penalty.term)}" for penalty in row.penalties]
    outer = [short(part) for part in row.after]
    outer += [f"{model.role} ({model.start}, {model.follows.kind})" for model in row.models]
    if row.n_epochs * row.minibatches > 1:
        outer.append(f"{row.n_epochs} passes of {row.minibatches} minibatches")
    return (
        f"`{row.name}`",
        short(row.collect),
        ", ".join(["the task's", *map(short, row.rewards)]),
        "–" if row.advantage is None else short(row.advantage),
        ", ".join(weights) or "1",
        loss,
        "; ".join(regulariser) or "–",
        "; ".join(outer) or "–",
    )


def short(part: Part) -> str:
    """Return the name of a part with its options, such as `group_advantage` center=group scale=group."""
    said = [f"{name}={short(value) if isinstance(value, Part) else _number(value)}" for name, value in part.options]
    return " ".join([f"`{part.path.partition(':')[2]}`", *said])


def _number(value: object) -> str:
    if isinstance(value, Schedule):
        return f"{value.start:g} to {value.end:g}"
    return f"{value:g}" if isinstance(value, float) else str(value)
