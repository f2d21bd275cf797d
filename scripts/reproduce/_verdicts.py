"""What the runs of a claim show: its comparisons, its controls, and a headline that says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from _claim import Claim, Comparison
from _runs import Runs

from polyathlon.statistics import Interval, paired_difference, smallest_effect


@dataclass(frozen=True)
class Row:
    """A comparison with what was found.

    Attributes:
        comparison: what was claimed; a control's has the control in the method's place.
        difference: mean paired difference method - baseline with its interval; None where an arm was not run.
        detectable: the least true difference that so many seeds find in 80 %, by the spread of these differences.
        verdict: "shown", "not shown", "contrary" or "not run".
        control_of: name of the arm whose place a control takes; empty for the claim's own comparisons.
    """

    comparison: Comparison
    difference: Interval | None
    detectable: float
    verdict: str
    control_of: str = ""

    @property
    def words(self) -> str:
        """What was found, in words."""
        c = self.comparison
        if self.difference is None:
            return f"{c.method} against {c.baseline}: not run"
        margin = f" by more than {c.margin:g}" if c.margin else ""
        said = {
            "equal": f"equals {c.baseline} within {c.margin:g}",
            "not lower": f"is at most {c.margin:g} below {c.baseline}",
        }.get(c.direction, f"is {c.direction} than {c.baseline}{margin}")
        if self.verdict == "not shown":
            said = f"{said}: not shown"
        if self.verdict == "contrary":
            side = "higher" if self.difference.estimate > 0 else "lower"
            said = f"is {side} than {c.baseline}, contrary to the claim"
        return f"{c.method} {said} ({self.difference})"


@dataclass(frozen=True)
class Findings:
    """All rows of a claim, and the number of seeds behind them."""

    rows: list[Row]
    controls: list[Row]
    seeds: int

    @property
    def is_shown(self) -> bool:
        """Whether every comparison is shown and every control was run and failed."""
        return all(row.verdict == "shown" for row in self.rows) and self.control_state == "failed"

    @property
    def control_state(self) -> str:
        """Return "failed" when no control's comparison is shown, as it must be; "shown" or "not run" otherwise."""
        states = {row.verdict for row in self.controls}
        if "shown" in states:
            return "shown"
        return "not run" if "not run" in states or not states else "failed"

    @property
    def headline(self) -> str:
        """What was found, in a line: how much of the claim, then every comparison."""
        count = sum(row.verdict == "shown" for row in self.rows)
        total = len(self.rows)
        state = "Shown" if count == total else "Not shown" if not count else f"{count} of {total} shown"
        if self.control_state == "shown":
            state = "Void, since a negative control passes as well"
        if self.control_state == "not run":
            state += ", negative control not run"
        return f"{state} ({self.seeds} seeds): {'; '.join(row.words for row in self.rows)}."

    def lines(self) -> list[str]:
        """What the command prints."""
        controls = [
            f"control, {row.comparison.method} in place of {row.control_of}: {row.words} "
            f"({'NOT as it must' if row.verdict == 'shown' else 'as it must' if row.difference else 'not run'})"
            for row in self.controls
        ]
        return [self.headline, *controls]


def judge(claim: Claim, runs: Runs, seeds: list[int]) -> Findings:
    """Compare the arms and the controls as the claim says, paired by seed and averaged over tasks."""

    def row(comparison: Comparison, control_of: str = "") -> Row:
        arms = (comparison.method, comparison.baseline)
        if any((arm, seed, task) not in runs for arm in arms for seed in seeds for task in claim.tasks):
            return Row(comparison, None, float("nan"), "not run", control_of)
        ours, theirs = (np.array([[runs[arm, s, t].score for t in claim.tasks] for s in seeds]) for arm in arms)
        difference = paired_difference(ours, theirs)
        spread = float((ours - theirs).mean(1).std(ddof=1))
        return Row(
            comparison, difference, smallest_effect(len(seeds)) * spread, comparison.verdict(difference), control_of
        )

    controls = [
        row(Comparison(control.arm, c.baseline, c.direction, c.margin), c.method)
        for control in claim.controls
        for c in claim.comparisons
        if c.method in control.stands_for and c.baseline != control.arm
    ]
    return Findings([row(comparison) for comparison in claim.comparisons], controls, len(seeds))


def as_dict(row: Row) -> dict[str, Any]:
    """Return a row for the JSON file."""
    c, d = row.comparison, row.difference
    found = {"difference": d.estimate, "low": d.low, "high": d.high, "detectable": row.detectable} if d else {}
    named = {"control_of": row.control_of} if row.control_of else {}
    return {
        **named,
        "method": c.method,
        "baseline": c.baseline,
        "direction": c.direction,
        "margin": c.margin,
        **found,
        "verdict": row.verdict,
    }
