"""A claim about methods: arms run over paired seeds, differences with bootstrap intervals, a page and a picture.

A file of this folder defines `CLAIM = Claim(...)` and ends with `main(CLAIM)` under `if __name__ == "__main__"`.
Run it with `polyathlon reproduce NAME` or `python scripts/reproduce/NAME.py`. Every finished run of an arm is kept under
.cache/reproduce/NAME, so an interrupted reproduction continues where it stood.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
DIRECTIONS = ("higher", "lower", "equal", "not lower")


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
        direction: "higher" or "lower": the interval of the paired difference lies on that side of zero;
            "equal": it lies within `margin` of zero; "not lower": it does not lie below zero as a whole, which
            says no more than that no loss was seen.
        margin: largest difference that counts as equal, in units of the metric.
    """

    method: str
    baseline: str
    direction: str
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise ValueError(f"direction must be one of {DIRECTIONS}, got {self.direction!r}")

    def verdict(self, low: float, high: float) -> bool:
        """Return whether an interval of the paired difference method - baseline shows the claim."""
        if self.direction == "higher":
            return low > 0
        if self.direction == "lower":
            return high < 0
        if self.direction == "not lower":
            return high >= 0
        return -self.margin <= low and high <= self.margin


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
        tasks: names of the tasks; an arm runs every seed on each.
        seeds: number of seeds.
        step_label: unit of the curves' horizontal axis.
        setting: budget and hyper-parameters, for the page.
    """

    name: str
    statement: str
    source: str
    metric: str
    arms: dict[str, Callable[[int, str], Run]]
    comparisons: Sequence[Comparison]
    tasks: Sequence[str] = ("task",)
    seeds: int = 5
    step_label: str = "environment steps"
    setting: str = ""


def list_claims(folder: Path | None = None) -> list[str]:
    """Return the names of the claims in the folder of the reproduction scripts."""
    folder = folder or Path(__file__).parent
    return sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))


def load_claim(name: str) -> Claim:
    """Import the claim `name` of this folder."""
    if str(Path(__file__).parent) not in sys.path:
        sys.path.insert(0, str(Path(__file__).parent))
    claim: Claim = import_module(name).CLAIM
    return claim


def _run_arm(claim_name: str, arm: str, seed: int, task: str) -> Run:
    import torch

    torch.set_num_threads(1)
    start = time.perf_counter()
    run = load_claim(claim_name).arms[arm](seed, task)
    return Run(float(run.score), run.curve, run.extra, time.perf_counter() - start)


def _store(claim: Claim) -> Path:
    folder = REPOSITORY / ".cache" / "reproduce" / claim.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def collect(claim: Claim, seeds: int, jobs: int, fresh: bool = False) -> dict[tuple[str, int, str], Run]:
    """Run every arm with every seed on every task; finished runs are read back from the cache.

    Args:
        claim: the claim.
        seeds: number of seeds, from 0.
        jobs: number of worker processes.
        fresh: forget earlier runs.

    Returns:
        (arm, seed, task) -> outcome.

    Raises:
        Exception: what the first arm that failed raised; no more arms are begun then, those under way are kept.
    """
    store, done, todo = _store(claim), {}, []
    failure: BaseException | None = None
    for key in [(arm, seed, task) for seed in range(seeds) for task in claim.tasks for arm in claim.arms]:
        path = store / f"{'--'.join(str(part).replace('/', '_') for part in key)}.json"
        if path.exists() and not fresh:
            stored = json.loads(path.read_text())
            done[key] = Run(stored["score"], [tuple(p) for p in stored["curve"]], stored["extra"], stored["seconds"])
        else:
            todo.append((key, path))
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(_run_arm, claim.name, *key): (key, path) for key, path in todo}
        for number, future in enumerate(as_completed(futures), 1):
            key, path = futures[future]
            if future.cancelled():
                continue
            if future.exception() is not None:
                failure = failure or future.exception()
                print(f"[{number}/{len(todo)}] {key} failed: {future.exception()}", flush=True)
                for other in futures:
                    other.cancel()
                continue
            done[key] = future.result()
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(asdict(done[key])))
            os.replace(partial, path)
            print(f"[{number}/{len(todo)}] {key}: {done[key].score:.4g} in {done[key].seconds:.0f} s", flush=True)
    if failure is not None:
        raise failure
    return done


def interval(values: np.ndarray, reps: int = 9_999) -> tuple[float, float, float]:
    """Return mean and 95 % percentile bootstrap interval of `values` [seeds, tasks], resampling seeds.

    rliable would be the natural library, but its dependency arch does not import beside pandas 3.
    """
    from scipy.stats import bootstrap

    by_seed = values.mean(1)
    if np.ptp(by_seed) == 0:
        return float(by_seed[0]), float(by_seed[0]), float(by_seed[0])
    found = bootstrap((by_seed,), np.mean, n_resamples=reps, method="percentile", rng=np.random.default_rng(0))
    return float(by_seed.mean()), float(found.confidence_interval.low), float(found.confidence_interval.high)


def judge(claim: Claim, runs: dict[tuple[str, int, str], Run], seeds: int) -> list[dict[str, Any]]:
    """Compare the arms as the claim says, paired by seed and task."""

    def table(arm: str) -> np.ndarray:
        return np.array([[runs[arm, seed, task].score for task in claim.tasks] for seed in range(seeds)])

    rows = []
    for comparison in claim.comparisons:
        difference = table(comparison.method) - table(comparison.baseline)
        mean, low, high = interval(difference)
        rows.append(
            {**asdict(comparison), "difference": mean, "low": low, "high": high, "shown": comparison.verdict(low, high)}
        )
    return rows


def _versions() -> dict[str, str]:
    names = ("torch", "numpy", "gymnasium", "stable-baselines3", "mujoco", "transformers")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    return {**found, "python": platform.python_version(), "commit": commit.stdout.strip() or "unknown"}


def draw(claim: Claim, runs: dict[tuple[str, int, str], Run], seeds: int, path: Path) -> None:
    """Draw the mean curve of every arm with the range over seeds, a panel a task; bars with seeds as points where there are none."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(claim.tasks), figsize=(5.5 * len(claim.tasks), 4), squeeze=False)
    for axis, task in zip(axes[0], claim.tasks):
        has_curves = all(runs[arm, seed, task].curve for arm in claim.arms for seed in range(seeds))
        for arm in claim.arms:
            mine = [runs[arm, seed, task] for seed in range(seeds)]
            if not has_curves:
                scores = [run.score for run in mine]
                axis.bar(textwrap.fill(arm, 14), np.mean(scores), alpha=0.6)
                axis.plot([textwrap.fill(arm, 14)] * seeds, scores, "k.", markersize=5)
                continue
            length = min(len(run.curve) for run in mine)
            steps = np.array([point[0] for point in mine[0].curve[:length]])
            values = np.array([[point[1] for point in run.curve[:length]] for run in mine])
            (line,) = axis.plot(steps, values.mean(0), label=arm, marker="o" if length == 1 else None)
            axis.fill_between(steps, values.min(0), values.max(0), alpha=0.2, color=line.get_color())
        axis.set(title="" if task == "task" else task, ylabel=textwrap.fill(claim.metric, 45))
        axis.grid(alpha=0.3)
        if has_curves:
            axis.set_xlabel(claim.step_label)
            axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write_page(
    claim: Claim, runs: dict[tuple[str, int, str], Run], seeds: int, rows: list[dict[str, Any]], folder: Path
) -> None:
    """Write NAME.md, NAME.png and NAME.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    draw(claim, runs, seeds, folder / f"{claim.name}.png")
    lines = [
        f"# {claim.name}",
        "",
        claim.statement,
        "",
        f"Source: {claim.source}",
        "",
        f"Metric: {claim.metric}. {claim.setting}",
        "",
    ]
    lines += ["| comparison | claimed | mean paired difference | 95 % interval | verdict |", "|---|---|---|---|---|"]
    for row in rows:
        wanted = row["direction"] + (f" (within {row['margin']:g})" if row["direction"] == "equal" else "")
        shown = "shown" if row["shown"] else "not shown"
        lines.append(
            f"| {row['method']} - {row['baseline']} | {wanted} | {row['difference']:.4g} | {row['low']:.4g} to {row['high']:.4g} | {shown} |"
        )
    lines += [
        "",
        f"![curves]({claim.name}.png)",
        "",
        "| arm | task | scores by seed | mean | seconds a run |",
        "|---|---|---|---|---|",
    ]
    for arm in claim.arms:
        for task in claim.tasks:
            mine = [runs[arm, seed, task] for seed in range(seeds)]
            scores = ", ".join(f"{run.score:.4g}" for run in mine)
            lines.append(
                f"| {arm} | {task} | {scores} | {np.mean([r.score for r in mine]):.4g} | {np.mean([r.seconds for r in mine]):.0f} |"
            )
    versions = ", ".join(f"{name} {version}" for name, version in _versions().items())
    lines += [
        "",
        f"Written by `polyathlon reproduce {claim.name}` ({seeds} seeds; {versions}; {platform.machine()}, {os.cpu_count()} cores).",
        "",
    ]
    (folder / f"{claim.name}.md").write_text("\n".join(lines))
    content = {"rows": rows, "runs": [{"arm": a, "seed": s, "task": t, **asdict(r)} for (a, s, t), r in runs.items()]}
    (folder / f"{claim.name}.json").write_text(json.dumps({**content, "versions": _versions()}, indent=1))


def main(claim: Claim, arguments: Sequence[str] | None = None) -> int:
    """Run a claim from the command line.

    Returns:
        0 when every comparison is shown, 1 otherwise.
    """
    parser = argparse.ArgumentParser(description=claim.statement)
    parser.add_argument("--seeds", type=int, default=claim.seeds, help="number of seeds")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="worker processes")
    parser.add_argument("--fresh", action="store_true", help="forget earlier runs")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "results", help="folder of the page")
    options = parser.parse_args(arguments)
    if options.seeds < 2:
        parser.error("an interval needs at least two seeds")
    runs = collect(claim, options.seeds, options.jobs, options.fresh)
    rows = judge(claim, runs, options.seeds)
    write_page(claim, runs, options.seeds, rows, options.out)
    for row in rows:
        print(
            f"{row['method']} - {row['baseline']}: {row['difference']:.4g} [{row['low']:.4g}, {row['high']:.4g}] "
            f"claimed {row['direction']}: {'shown' if row['shown'] else 'NOT shown'}"
        )
    print(f"written: {options.out / (claim.name + '.md')}")
    return 0 if all(row["shown"] for row in rows) else 1
