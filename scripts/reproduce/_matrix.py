"""`polyathlon reproduce matrix`: every kind of agent on every family, measured cell by cell, and the page that shows it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

if str(Path(__file__).parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parent))

from _claim import REPOSITORY, RESULTS, committed
from _matrix_cells import LIMIT, QUICK_LIMIT, Cell, all_cells, in_order, parse_cells, seeds_of

FOLDER = REPOSITORY / ".cache" / "reproduce" / "matrix"
QUICK_SEED = 0
Outcome = dict[str, Any]
CHANGED = {
    "status": "failed",
    "reason": "its settings were changed while it ran (its outcome is kept under those it began with): run it again",
}


class Job(NamedTuple):
    """One run: a cell, its seed, the CPU seconds it may take, and whether its rewards are shuffled."""

    cell: Cell
    seed: int
    limit: float
    shuffled: bool = False

    @property
    def path(self) -> Path:
        """Where its outcome under the settings of now is kept."""
        return self.path_of(self.cell.key(self.limit))

    def path_of(self, key: str) -> Path:
        """Where its outcome under settings with this hash is kept."""
        end = "-shuffled" if self.shuffled else ""
        return FOLDER / key / f"{self.cell.family}-{self.cell.kind}-{self.seed}{end}.json"

    def kept(self) -> Outcome | None:
        """Return the outcome of an earlier run under the same settings, or None."""
        return json.loads(self.path.read_text()) if self.path.exists() else None

    def keep(self, outcome: Outcome) -> None:
        """Write the outcome under the settings that its run took; what failed is not kept, so that it is tried again."""
        if outcome["status"] == "failed":
            return
        path = self.path_of(outcome.get("key", self.cell.key(self.limit)))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(outcome))
        os.replace(partial, path)


def jobs_of(cells: Iterable[Cell], seeds: Sequence[int], limit: float, control: bool) -> list[Job]:
    """Return the runs of cells: each with every seed, and one with shuffled rewards where there is a control."""
    found = []
    for cell in cells:
        found += [Job(cell, seed, limit) for seed in seeds]
        found += [Job(cell, seeds[0], limit, True)] if control else []
    return found


def run_job(job: Job) -> Outcome:
    """Run a job in a process of its own, which ends itself at three times its CPU seconds and a minute.

    The process takes the cell's settings once, when it begins, and its outcome has their hash, "key".
    """
    from _matrix_record import source_commit

    script, commit = Path(__file__).with_name("_matrix_run.py"), source_commit()
    words = [str(job.cell), str(job.seed), str(job.limit), "shuffled" if job.shuffled else "rewards"]

    done = subprocess.run(
        [sys.executable, str(script), *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    )
    lines = done.stdout.strip().splitlines()
    try:
        outcome = {**json.loads(lines[-1]), "commit": commit}
    except (IndexError, ValueError):
        end = done.stderr.strip().splitlines()
        reason = f"the process ended with code {done.returncode}: {end[-1] if end else 'it said nothing'}"
        return {"status": "failed", "reason": reason}
    return outcome


def collect(
    jobs: Sequence[Job],
    workers: int,
    fresh: bool = False,
    run: Callable[[Job], Outcome] = run_job,
    report: Callable[[str], None] = print,
) -> dict[Job, Outcome]:
    """Run what was not run before under the same settings; every outcome is on disk before the next job begins.

    Args:
        jobs: the runs.
        workers: processes at once.
        fresh: forget earlier outcomes.
        run: what runs a job.
        report: takes a line a run.
    """
    found: dict[Job, Outcome] = {}
    missing = []
    for job in jobs:
        kept = None if fresh else job.kept()
        if kept is None:
            missing.append(job)
        else:
            found[job] = kept
    if found:
        report(f"{len(found)} of {len(jobs)} runs are there already")
    pool = ThreadPoolExecutor(workers)
    try:
        futures = {pool.submit(run, job): job for job in missing}
        for number, future in enumerate(as_completed(futures), 1):
            job = futures[future]
            outcome = future.result()
            job.keep(outcome)
            found[job] = outcome if _is_of_now(job, outcome) else CHANGED
            report(f"[{number}/{len(missing)}] {_line(job, found[job])}")
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return {job: found[job] for job in jobs}


def _is_of_now(job: Job, outcome: Outcome) -> bool:
    """Return whether a run took the settings that hold now; files of settings may be edited while runs go on."""
    now = job.cell.key(job.limit)
    return outcome["status"] == "failed" or outcome.get("key", now) == now


def _line(job: Job, outcome: Outcome) -> str:
    what = f"{job.cell} seed {job.seed}{' (shuffled rewards)' if job.shuffled else ''}"
    if outcome["status"] != "done":
        return f"{what}: {outcome['status']}: {outcome.get('reason', '')}"
    numbers = ", ".join(f"{name} {outcome[name]:.4g}" for name in ("random", "start", "trained"))
    return f"{what}: {numbers} in {outcome['seconds']:.0f} CPU seconds"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the matrix, or some of its cells, and write its page.

    Returns:
        0; the table says what holds.
    """
    from _matrix_best import best_known
    from _matrix_judge import judge_page
    from _matrix_page import write_page
    from _matrix_record import recorded

    options = _options(arguments)
    cells = in_order(options.cells)
    limit = QUICK_LIMIT if options.quick else LIMIT
    seeds = [QUICK_SEED] if options.quick else seeds_of()
    known = {**recorded(options.out), **_kept(seeds, limit, not options.quick)}
    ran = collect(jobs_of(cells, seeds, limit, control=not options.quick), options.jobs, options.fresh)
    outcomes = {**_without(known, cells, limit), **ran}
    best = best_known({job.cell.family for job in outcomes})
    judged = judge_page(outcomes, best)
    flagged = [row.cell for row in judged.rows if row.is_flagged and row.cell in cells]
    if flagged and not options.quick:
        print(f"{', '.join(map(str, flagged))}: shuffled rewards gained; repeated with new seeds")
        outcomes |= collect([Job(c, s, limit, True) for c in flagged for s in seeds_of(extra=True)], options.jobs)
        judged = judge_page(outcomes, best)
    for row in judged.rows:
        if row.cell in cells:
            print(row.words)
    print(judged.headline)
    kept = None
    if options.forgetting or (not options.quick and any(cell.kind == "language" for cell in cells)):
        from _matrix_forgetting import forgetting

        kept = forgetting(options.fresh)
        print(
            f"sums {kept['sums']:.2f}, after function calls {kept['sums after calls']:.2f} (calls {kept['calls']:.2f})"
        )
    print(f"written: {write_page(judged, options.out, committed('_matrix_cells'), outcomes, kept)}")
    return 0


def _kept(seeds: Sequence[int], limit: float, control: bool) -> dict[Job, Outcome]:
    """Return the outcomes of all cells from earlier calls under the same settings, so that the page grows call by call."""
    every = jobs_of(all_cells(), seeds, limit, control)
    return {job: kept for job in every if (kept := job.kept()) is not None}


def _without(known: dict[Job, Outcome], cells: Sequence[Cell], limit: float) -> dict[Job, Outcome]:
    """Leave out the runs that this call makes anew; of a cell's flagged control the repetition stays."""
    return {j: o for j, o in known.items() if j.cell not in cells or j.limit != limit or j.seed in seeds_of(extra=True)}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    from polyathlon.envs.errors import UsageError

    parser = argparse.ArgumentParser(
        prog="polyathlon reproduce matrix", description="Every kind of agent on every family: what it learns."
    )
    parser.add_argument("--quick", action="store_true", help="one seed, 40 CPU seconds a cell, no control: not a claim")
    parser.add_argument(
        "--cells", metavar="FAMILY:KIND,...", help="only these cells; a family or a kind alone is its row or column"
    )
    parser.add_argument(
        "--forgetting",
        action="store_true",
        help="also measure whether a language agent keeps its skill on sums while it learns function calls (else with language cells of five seeds)",
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--fresh", action="store_true", help="forget earlier runs")
    parser.add_argument("--out", type=Path, help="folder of the page (default: docs/results for the whole matrix)")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs is a positive number of processes, got {options.jobs}")
    try:
        options.cells = parse_cells(options.cells)
    except UsageError as error:
        parser.error(str(error))
    if options.out is None:
        if len(options.cells) < len(all_cells()):
            parser.error("some cells are not the whole matrix: name the folder of their page with --out")
        if not options.quick and committed("_matrix_cells") is None:
            parser.error("commit scripts/reproduce/_matrix_cells.py before it runs, or name another folder with --out")
        options.out = RESULTS
    return options


if __name__ == "__main__":
    sys.exit(main())
