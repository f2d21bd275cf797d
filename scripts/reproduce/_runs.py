"""The runs of a claim: made in worker processes, kept in the cache, recorded with what they were made by."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from _claim import REPOSITORY, Claim, Run, load_claim

from polyathlon.interrupts import end_with_parent

Runs = dict[tuple[str, int, str], Run]


@dataclass(frozen=True)
class Record:
    """Runs with what they were made by.

    Attributes:
        runs: (arm, seed, task) -> outcome.
        seeds: in the order in which they ran.
        registration: hash of the claim's text by which the seeds were drawn; empty for runs from before that.
        commit: of that text.
        note: what a reader must know of these runs, such as seeds added after looking.
        versions: of the packages that made them, and the machine.
    """

    runs: Runs
    seeds: list[int]
    registration: str = ""
    commit: str = ""
    note: str = ""
    versions: dict[str, str] = field(default_factory=dict)


def record(claim: Claim, runs: Runs, seeds: list[int], commit: str | None) -> Record:
    """Put together what a page says of runs that have just been made."""
    note = f"{claim.added.count} of the seeds were added after looking: {claim.added.note}" if claim.added else ""
    return Record(runs, seeds, claim.registration, commit or "not committed", note, versions())


def _run_arm(claim_name: str, arm: str, seed: int, task: str) -> Run:
    import torch

    torch.set_num_threads(1)
    start = time.perf_counter()
    run = load_claim(claim_name).arms[arm](seed, task)
    return Run(float(run.score), run.curve, run.extra, time.perf_counter() - start)


def _store(claim: Claim) -> Path:
    folder = REPOSITORY / ".cache" / "reproduce" / claim.name / claim.registration[:12]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def collect(claim: Claim, seeds: list[int], jobs: int, fresh: bool = False) -> Runs:
    """Run every arm with every seed on every task; finished runs of the same text are read back from the cache.

    Args:
        claim: the claim.
        seeds: the seeds.
        jobs: number of worker processes.
        fresh: forget earlier runs.

    Returns:
        (arm, seed, task) -> outcome.

    Raises:
        Exception: what the first arm that failed raised; no more arms are begun then, those under way are kept.
    """
    store, done, todo = _store(claim), {}, []
    failure: BaseException | None = None
    for key in [(arm, seed, task) for seed in seeds for task in claim.tasks for arm in claim.arms]:
        path = store / f"{'--'.join(str(part).replace('/', '_') for part in key)}.json"
        if path.exists() and not fresh:
            done[key] = read_run(json.loads(path.read_text()))
        else:
            todo.append((key, path))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=end_with_parent) as pool:
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


def read_run(stored: dict[str, Any]) -> Run:
    """Return a run as `asdict` wrote it."""
    return Run(stored["score"], [(p[0], p[1]) for p in stored["curve"]], stored["extra"], stored["seconds"])


def versions() -> dict[str, str]:
    """Return the versions of the packages, the commit of the repository and the machine."""
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
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    return {
        **found,
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or "unknown",
        "machine": machine,
    }
