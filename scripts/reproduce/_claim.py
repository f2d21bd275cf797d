"""A claim about methods: what is said, by which arms, over which seeds, and what must fail.

A file of this folder defines `CLAIM = Claim(...)` and ends with `main(CLAIM)` under `if __name__ == "__main__"`.
Run it with `polyathlon reproduce NAME` or `python scripts/reproduce/NAME.py`. A claim's text is committed before it runs, and
its seeds come from a hash of that text. Every finished run of an arm is kept under .cache/reproduce/NAME, so an interrupted
reproduction continues where it stood.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path

if str(Path(__file__).parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parent))

from polyathlon.envs.errors import unknown_name
from polyathlon.statistics import Interval, is_equivalent, is_not_worse, verdict

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "docs" / "results"
DIRECTIONS = ("higher", "lower", "equal", "not lower")
FEWEST_SEEDS = 8
FIRST_SEED, LAST_SEED = 100, 1_000_000


@dataclass(frozen=True)
class Run:
    """Outcome of one arm with one seed on one task: the metric, and a learning curve of (step, value) pairs."""

    score: float
    curve: list[tuple[float, float]] = field(default_factory=list)
    extra: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """One sentence of a claim.

    Attributes:
        method: name of an arm.
        baseline: name of the arm it is compared with.
        direction: "higher" or "lower": the interval of the paired difference lies on that side of zero, by more than
            `margin`; "equal": it lies within `margin` of zero; "not lower": it lies above -margin.
        margin: in units of the metric; "equal" and "not lower" need one, since without it nothing could refute them.
    """

    method: str
    baseline: str
    direction: str
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise ValueError(f"direction must be one of {DIRECTIONS}, got {self.direction!r}")
        if self.margin < 0 or (self.direction in ("equal", "not lower") and not self.margin):
            raise ValueError(f"{self.direction!r} needs a margin above zero, got {self.margin!r}")

    @property
    def wording(self) -> str:
        """What is claimed of the difference, for a table."""
        if not self.margin:
            return self.direction
        return f"{self.direction} ({'by more than' if self.direction in ('higher', 'lower') else 'within'} {self.margin:g})"

    def verdict(self, difference: Interval) -> str:
        """Tell whether an interval of the paired difference method - baseline shows the claim.

        Returns:
            "shown", "not shown", or "contrary" where the interval shows the opposite.
        """
        low, high, margin = difference.low, difference.high, self.margin
        if self.direction == "equal":
            contrary = low > margin or high < -margin
            return "shown" if is_equivalent(difference, margin) else "contrary" if contrary else "not shown"
        if self.direction == "not lower":
            return "shown" if is_not_worse(difference, margin) else "contrary" if high < -margin else "not shown"
        sign = 1 if self.direction == "higher" else -1
        beyond = replace(difference, low=low - sign * margin, high=high - sign * margin)
        if verdict(beyond, sign > 0) == "better":
            return "shown"
        return "contrary" if verdict(difference, sign > 0) == "worse" else "not shown"


@dataclass(frozen=True)
class Control:
    """An arm for which the claim must fail: every comparison with this arm in a method's place.

    A comparison whose baseline is the arm itself is no control, since an arm never differs from itself; where an arm that learns
    nothing is the baseline, take it once more with other draws (`other_draws`), or the method with shuffled rewards.

    Attributes:
        arm: name of the arm, such as an agent whose `train` does nothing.
        stands_for: names of the arms whose place it takes.
    """

    arm: str
    stands_for: tuple[str, ...]


@dataclass(frozen=True)
class Added:
    """Seeds that were added after the first ones had been looked at.

    Attributes:
        count: how many.
        note: why; it stays on the page.
    """

    count: int
    note: str


@dataclass(frozen=True)
class Claim:
    """What is claimed and how it is measured.

    Attributes:
        name: file name of the claim, without ending.
        statement: the claim in a sentence.
        source: paper or implementation that it stands on.
        metric: what a score is, with its unit.
        arms: name of an arm -> function `(seed, task) -> Run`, importable from the claim's module.
        comparisons: which arms are compared, and how.
        controls: arms for which it must fail; every comparison has one that is not its own baseline.
        tasks: names of the tasks; an arm runs every seed on each.
        seeds: number of seeds; ten find a difference of one standard deviation in 80 %.
        why_few: reason for fewer than eight seeds, for the page.
        added: seeds added after looking.
        earlier: what runs under an earlier text found, for the page; no part of what is registered.
        curve: what the arms' curves show, with its unit; empty where they have none.
        step_label: unit of the curves' horizontal axis.
        setting: budget and hyper-parameters, for the page.

    Raises:
        ValueError: an unknown arm, no control for a method, a comparison whose only controls are its own baseline, few seeds without
            a reason, or seeds added without a note.
    """

    name: str
    statement: str
    source: str
    metric: str
    arms: dict[str, Callable[[int, str], Run]]
    comparisons: Sequence[Comparison]
    controls: Sequence[Control]
    tasks: Sequence[str] = ("task",)
    seeds: int = 10
    why_few: str = ""
    added: Added | None = None
    earlier: str = ""
    curve: str = ""
    step_label: str = "environment steps"
    setting: str = ""

    def __post_init__(self) -> None:
        named = {name for c in self.comparisons for name in (c.method, c.baseline)}
        for name in sorted(named | {name for c in self.controls for name in (c.arm, *c.stands_for)}):
            if name not in self.arms:
                raise unknown_name(f"arm of the claim {self.name}", name, self.arms)
        for comparison in self.comparisons:
            standing = [control.arm for control in self.controls if comparison.method in control.stands_for]
            if not standing:
                raise ValueError(
                    f"{self.name}: no control stands for {comparison.method!r}, so the claim could not fail"
                )
            if all(arm == comparison.baseline for arm in standing):
                raise ValueError(
                    f"{self.name}: the only control of {comparison.method!r} against {comparison.baseline!r} is {comparison.baseline!r} "
                    "itself, which cannot differ from itself; take another arm, such as the baseline with other_draws(...) or the "
                    "method with shuffled rewards"
                )
        if self.seeds < FEWEST_SEEDS and not self.why_few:
            raise ValueError(f"{self.name}: {self.seeds} seeds; take at least {FEWEST_SEEDS} or say why not (why_few)")
        if self.added and (self.added.count < 1 or not self.added.note):
            raise ValueError(f"{self.name}: seeds added after looking need a note that says so")

    @property
    def total_seeds(self) -> int:
        """Number of seeds, those added after looking included."""
        return self.seeds + (self.added.count if self.added else 0)

    @property
    def registration(self) -> str:
        """Hash of the claim's text: what is said, compared and run, and over how many seeds, before any were added."""
        text = {
            "claim": [self.name, self.statement, self.source, self.metric, self.setting],
            "arms": list(self.arms),
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
            "controls": [asdict(control) for control in self.controls],
            "tasks": list(self.tasks),
            "seeds": self.seeds,
        }
        return hashlib.sha256(json.dumps(text, sort_keys=True).encode()).hexdigest()

    def seed_list(self, count: int | None = None) -> list[int]:
        """Return the first seeds of the claim, from 100 to 999,999, drawn by the hash of its text.

        Args:
            count: how many; None means all.
        """
        return drawn_seeds(self.registration, self.total_seeds if count is None else count)


def other_draws(arm: Callable[[int, str], Run]) -> Callable[[int, str], Run]:
    """Return an arm once more, with draws that no seed of a claim has: it differs from the arm by chance alone."""

    def again(seed: int, task: str) -> Run:
        return arm(LAST_SEED + seed, task)

    return again


def drawn_seeds(registration: str, count: int) -> list[int]:
    """Return `count` different seeds from 100 to 999,999, drawn by the hash of a claim's text."""
    seeds: list[int] = []
    number = 0
    while len(seeds) < count:
        digest = hashlib.sha256(f"{registration}:{number}".encode()).digest()
        seed = FIRST_SEED + int.from_bytes(digest[:8], "big") % (LAST_SEED - FIRST_SEED)
        if seed not in seeds:
            seeds.append(seed)
        number += 1
    return seeds


# what is measured over many cells, or once, and is no Claim: name -> module of this folder with a `main`
TABLES = {
    "matrix": "_matrix",
    "smollm2": "_smollm2",
    "smollm2_preferences": "_smollm2_preferences",
    "twelve_recipes": "_twelve_recipes",
}


def list_claims(folder: Path | None = None) -> list[str]:
    """Return the names of the claims in the folder of the reproduction scripts."""
    folder = folder or Path(__file__).parent
    return sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))


def load_claim(name: str) -> Claim:
    """Import the claim `name` of this folder."""
    claim: Claim = import_module(name).CLAIM
    return claim


def findings() -> list[tuple[str, str]]:
    """Return the name of every claim and what its last run found, as its page says."""
    from _page import found_of

    return [(name, found_of(RESULTS / f"{name}.json")) for name in sorted([*list_claims(), *TABLES])]


def committed(name: str) -> str | None:
    """Return the commit in which the file `name`.py of this folder got its present text, or None when that text is in no commit."""
    path = f"scripts/reproduce/{name}.py"

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return None if git("status", "--porcelain", "--", path) else git("log", "-1", "--format=%h", "--", path) or None


def main(claim: Claim, arguments: Sequence[str] | None = None) -> int:
    """Run a claim from the command line.

    Returns:
        0 when every comparison is shown and every control fails, 1 otherwise.
    """
    from _page import read_record, write_page
    from _runs import collect, record
    from _verdicts import judge

    options = _options(claim, arguments)
    if options.judge:
        content = read_record(RESULTS / f"{claim.name}.json")
        print("judged again from the runs of", RESULTS / f"{claim.name}.json")
    else:
        seeds = claim.seed_list(options.seeds)
        content = record(claim, collect(claim, seeds, options.jobs, options.fresh), seeds, committed(claim.name))
    found = judge(claim, content.runs, content.seeds)
    write_page(claim, content, found, options.out)
    for line in found.lines():
        print(line)
    print(f"written: {options.out / (claim.name + '.md')}")
    return 0 if found.is_shown else 1


def _options(claim: Claim, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"polyathlon reproduce {claim.name}", description=claim.statement)
    parser.add_argument(
        "--seeds", type=int, default=claim.total_seeds, help="only the first so many of the claim's seeds"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="worker processes")
    parser.add_argument("--fresh", action="store_true", help="forget earlier runs")
    parser.add_argument(
        "--judge", action="store_true", help="run nothing: judge the recorded runs again, write the page"
    )
    parser.add_argument("--out", type=Path, help="folder of the page (default: docs/results)")
    options = parser.parse_args(arguments)
    if options.seeds < 2:
        parser.error("an interval needs at least two seeds")
    if options.seeds > claim.total_seeds:
        parser.error(
            f"the claim has {claim.total_seeds} seeds; more are added in its file, with a note: added=Added(...)"
        )
    if options.judge and not (RESULTS / f"{claim.name}.json").exists():
        parser.error(f"nothing to judge: docs/results/{claim.name}.json does not exist; run the claim")
    if options.out is None and not options.judge:
        if options.seeds < claim.total_seeds:
            parser.error(f"{options.seeds} of {claim.total_seeds} seeds are no result: name another folder with --out")
        if committed(claim.name) is None:
            parser.error(f"commit scripts/reproduce/{claim.name}.py before it runs, or name another folder with --out")
    options.out = options.out or RESULTS
    return options


__all__ = [
    "REPOSITORY",
    "RESULTS",
    "TABLES",
    "Added",
    "Claim",
    "Comparison",
    "Control",
    "Run",
    "committed",
    "drawn_seeds",
    "findings",
    "list_claims",
    "load_claim",
    "main",
    "other_draws",
]
