"""The page of a claim: what was found, the picture, the scores; and the table of all pages."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from _claim import FEWEST_SEEDS, Claim
from _runs import Record, Runs, read_run
from _verdicts import Findings, Row, as_dict

from polyathlon.statistics import curve_band

TABLE_START, TABLE_END = "<!-- claims: written by polyathlon reproduce -->", "<!-- end of claims -->"


def read_record(path: Path) -> Record:
    """Read the runs of NAME.json with what they were made by."""
    content = json.loads(path.read_text())
    runs = {(run["arm"], run["seed"], run["task"]): read_run(run) for run in content["runs"]}
    made = content.get("registration", {})
    return Record(
        runs,
        made.get("seeds") or list(dict.fromkeys(seed for _, seed, _ in runs)),
        made.get("hash", ""),
        made.get("commit", ""),
        content.get("note", ""),
        content["versions"],
    )


def found_of(path: Path) -> str:
    """Return the headline of NAME.json, or that there is none."""
    return str(json.loads(path.read_text()).get("found", "not judged yet")) if path.exists() else "not run yet"


def write_page(claim: Claim, record: Record, findings: Findings, folder: Path) -> None:
    """Write NAME.md, NAME.png and NAME.json into `folder`, and the table of its index.md where it has one."""
    folder.mkdir(parents=True, exist_ok=True)
    draw(claim, record.runs, record.seeds, folder / f"{claim.name}.png")
    (folder / f"{claim.name}.md").write_text(page(claim, record, findings))
    content = {
        "found": findings.headline,
        "note": record.note,
        "registration": {"hash": record.registration, "commit": record.commit, "seeds": record.seeds},
        "rows": [as_dict(row) for row in findings.rows],
        "controls": [as_dict(row) for row in findings.controls],
        "runs": [{"arm": a, "seed": s, "task": t, **asdict(r)} for (a, s, t), r in record.runs.items()],
        "versions": record.versions,
    }
    (folder / f"{claim.name}.json").write_text(json.dumps(content, indent=1))
    if (folder / "index.md").exists():
        (folder / "index.md").write_text(with_table((folder / "index.md").read_text(), folder))


def with_table(index: str, folder: Path) -> str:
    """Return the text of index.md with the table of claims written anew from the JSON files beside it."""
    lines = ["| claim | what was found |", "|---|---|"]
    for path in sorted(folder.glob("*.json")):
        if "found" in json.loads(path.read_text()):
            lines.append(f"| [{path.stem}]({path.stem}.md) | {found_of(path)} |")
    head, _, rest = index.partition(TABLE_START)
    return "\n".join([head + TABLE_START, "", *lines, "", TABLE_END + rest.partition(TABLE_END)[2]])


def page(claim: Claim, record: Record, findings: Findings) -> str:
    """Return the page in Markdown."""
    lines = [f"# {claim.name}", "", f"**{findings.headline}**", ""]
    lines += [
        f"Claimed: {claim.statement}",
        "",
        f"Source: {claim.source}",
        "",
        f"Metric: {claim.metric}. {claim.setting}",
        "",
    ]
    lines += [text for note in _notes(claim, record) for text in (note, "")]
    lines += ["| comparison | claimed | mean paired difference | 95 % interval | found in 80 % if at least | verdict |"]
    lines += ["|---|---|---|---|---|---|", *[_line(row) for row in findings.rows], ""]
    lines += [
        "Negative controls: the same comparisons with an arm in the method's place for which they must not be shown.",
        "",
        "| control | in place of | claimed | mean paired difference | 95 % interval | verdict |",
        "|---|---|---|---|---|---|",
        *[_control_line(row) for row in findings.controls],
        "",
        f"![scores]({claim.name}.png)",
        "",
        "| arm | task | scores by seed | mean | seconds a run |",
        "|---|---|---|---|---|",
    ]
    for arm in claim.arms:
        for task in claim.tasks:
            mine = [record.runs[arm, seed, task] for seed in record.seeds if (arm, seed, task) in record.runs]
            if mine:
                scores = ", ".join(f"{run.score:.4g}" for run in mine)
                mean, seconds = (np.mean([getattr(run, name) for run in mine]) for name in ("score", "seconds"))
                lines.append(f"| {arm} | {task} | {scores} | {mean:.4g} | {seconds:.0f} |")
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items() if name != "machine")
    machine = record.versions.get("machine", "")
    lines += ["", f"Written by `polyathlon reproduce {claim.name}` ({versions}{'; ' if machine else ''}{machine}).", ""]
    return "\n".join(lines)


def _notes(claim: Claim, record: Record) -> list[str]:
    """What a reader must know of the runs: where the seeds come from, how many there are, and what happened since."""
    seeds, count = ", ".join(map(str, record.seeds)), len(record.seeds)
    intervals = "Intervals are t-intervals of the mean over seeds, each by itself."
    if record.registration == claim.registration:
        notes = [
            f"{count} seeds, drawn by the hash {record.registration[:12]} of the claim's text (commit {record.commit}): {seeds}. {intervals}"
        ]
    elif record.registration:
        notes = [
            f"These runs were made under an earlier text of the claim (hash {record.registration[:12]}), seeds {seeds}. {intervals}"
        ]
    else:
        notes = [
            f"These runs were made before seeds were drawn by the hash of a claim's text, with the seeds {seeds}, which "
            f"development had used as well. {intervals}"
        ]
    if count < FEWEST_SEEDS:
        notes.append(
            f"Only {count} seeds: {claim.why_few or f'the runs with {claim.seeds} seeds have not been made yet'}."
        )
    return [*notes, *filter(None, (record.note, claim.earlier))]


def _found(row: Row) -> list[str]:
    d = row.difference
    return ["", ""] if d is None else [f"{d.estimate:.4g}", f"{d.low:.4g} to {d.high:.4g}"]


def _line(row: Row) -> str:
    c = row.comparison
    detectable = "" if row.difference is None else f"{row.detectable:.3g}"
    return f"| {' | '.join([f'{c.method} - {c.baseline}', c.wording, *_found(row), detectable, row.verdict])} |"


def _control_line(row: Row) -> str:
    c = row.comparison
    word = {"not run": "not run", "shown": "shown: the claim is void"}.get(row.verdict, f"{row.verdict}, as it must be")
    return f"| {' | '.join([f'{c.method} - {c.baseline}', row.control_of, c.wording, *_found(row), word])} |"


def draw(claim: Claim, runs: Runs, seeds: list[int], path: Path) -> None:
    """Draw a panel a task: the mean curve of every arm with its interval over seeds, or bars with seeds as points where there are no curves."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    width = 5.5 if claim.curve else max(5.5, 1.2 * len(claim.arms))  # names of many bars stand beside each other
    figure, axes = plt.subplots(1, len(claim.tasks), figsize=(width * len(claim.tasks), 4.2), squeeze=False)
    for axis, task in zip(axes[0], claim.tasks):
        arms = {arm: [runs[arm, s, task] for s in seeds if (arm, s, task) in runs] for arm in claim.arms}
        arms = {arm: mine for arm, mine in arms.items() if mine}
        has_curves = bool(claim.curve) and all(run.curve for mine in arms.values() for run in mine)
        for arm, mine in arms.items():
            _draw_curve(axis, arm, mine) if has_curves else _draw_bar(axis, arm, mine)
        label = claim.curve if has_curves else claim.metric
        axis.set(title="" if task == "task" else task, ylabel=textwrap.fill(label, 45))
        axis.grid(alpha=0.3)
        if has_curves:
            values = [value for mine in arms.values() for run in mine for _, value in run.curve]
            pad = 0.08 * (max(values) - min(values) or 1.0)
            axis.set_ylim(min(values) - pad, max(values) + pad)
            axis.set_xlabel(claim.step_label)
            axis.legend()
    what = "band: 95 % t-interval of the mean at each point" if has_curves else "bar: mean; points: seeds"
    figure.text(0.5, 0.005, f"mean of {len(seeds)} seeds; {what}", ha="center", fontsize=8, color="0.35")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_curve(axis: Any, arm: str, mine: list[Any]) -> None:
    length = min(len(run.curve) for run in mine)
    steps = np.array([point[0] for point in mine[0].curve[:length]])
    mean, low, high = curve_band([[point[1] for point in run.curve[:length]] for run in mine])
    if length > 1 and np.ptp(steps) == 0:  # evaluated again and again without learning
        (line,) = axis.plot([], [], label=arm, linestyle="--")
        axis.axhline(mean.mean(), color=line.get_color(), linestyle="--")
        return
    (line,) = axis.plot(steps, mean, label=arm, marker="o" if length == 1 else None)
    axis.fill_between(steps, low, high, alpha=0.2, color=line.get_color())


def _draw_bar(axis: Any, arm: str, mine: list[Any]) -> None:
    scores, name = [run.score for run in mine], textwrap.fill(arm, 14)
    axis.bar(name, np.mean(scores), alpha=0.6)
    axis.plot([name] * len(scores), scores, "k.", markersize=5)
