"""Solved instances in bulk: in parallel, kept on disk chunk by chunk, continued where a run stopped."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch

from polyathlon.envs.data.progress import Progress
from polyathlon.envs.errors import UsageError, check_positive_int
from polyathlon.envs.random import make_keys

from .construction import ConstructionTask
from .solutions import PlainInstance, problem_named
from .solvers import check_options, padded, solve, solver_named

FORMAT = 1
MANIFEST = "manifest.json"
_DISTRIBUTIONS = {"fast_tsp": "fast-tsp", "pyvrp": "pyvrp", "ortools": "ortools", "elkai": "elkai"}


class Labels(NamedTuple):
    """Solved instances.

    Attributes:
        solution: [B, L] int64 as `info["solution"]` has it at the end, -1 behind it.
        cost: [B] float64.
        cpu_seconds: processor time that the solver took for all of them.
    """

    solution: np.ndarray
    cost: np.ndarray
    cpu_seconds: float


class _Chunk(NamedTuple):
    """The labels of a part of the instances."""

    solution: np.ndarray
    cost: np.ndarray
    cpu_seconds: float


def fingerprint(instances: Sequence[PlainInstance]) -> str:
    """Return a digest of instances: equal for equal numbers."""
    digest = hashlib.sha256()
    for instance in instances:
        for name in sorted(instance):
            array = np.ascontiguousarray(np.asarray(instance[name], dtype=np.float64))
            digest.update(f"{name}{array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file under another name and rename it when it is complete, so that no half of it is ever seen."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _manifest(
    problem: str, solver: str, options: dict[str, Any], instances: Sequence[PlainInstance], chunk: int
) -> Any:
    distribution = _DISTRIBUTIONS.get(solver)
    return {
        "format": FORMAT,
        "problem": problem,
        "solver": solver,
        "options": options,
        "version": metadata.version(distribution) if distribution else None,
        "count": len(instances),
        "chunk": chunk,
        "instances": fingerprint(instances),
    }


def _open_folder(folder: Path, wanted: dict[str, Any]) -> None:
    """Make a folder of labels, or check that it holds those of the same task.

    Raises:
        UsageError: it holds others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MANIFEST
    if not path.exists():
        with replacing(path) as file:
            file.write(json.dumps(wanted, indent=1).encode())
        return
    try:
        found = json.loads(path.read_text())
        different = [key for key in wanted if found.get(key) != json.loads(json.dumps(wanted[key]))]
    except (ValueError, AttributeError) as error:
        raise UsageError(f"{path} is not a manifest of labels ({error}); take another folder") from error
    if different:
        key = different[0]
        raise UsageError(
            f"{folder} holds labels of another task: {key} is {found.get(key)!r} there, {wanted[key]!r} was asked for; "
            "take another folder"
        )


def _read_chunk(path: Path) -> _Chunk:
    try:
        with np.load(path) as stored:
            return _Chunk(stored["solution"], stored["cost"], float(stored["cpu_seconds"]))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error, NotImplementedError) as error:
        raise UsageError(f"{path} cannot be read ({error}); delete it, and it will be made again") from error


def _solve_chunk(problem: str, instances: list[PlainInstance], solver: str, options: dict[str, Any]) -> _Chunk:
    """Solve a part of the instances; runs in a process of its own."""
    start = time.process_time()
    solved = solve(problem, instances, solver, **options)
    return _Chunk(solved.solution, solved.cost, time.process_time() - start)


def label_instances(
    problem: str,
    instances: Sequence[PlainInstance],
    solver: str | None = None,
    *,
    folder: Path | str | None = None,
    workers: int = 1,
    chunk: int = 256,
    **options: Any,
) -> Labels:
    """Solve many instances, in parallel, keeping what is done.

    Args:
        problem: "tsp", "atsp", "cvrp", "op" or "knapsack".
        instances: dicts, see `solutions`.
        solver: a name in `SOLVERS[problem]`; None for the usual one.
        folder: where finished chunks are kept, with a manifest; a second call with the same arguments goes on where the
            first one stopped. None keeps nothing.
        workers: number of processes; 1 solves in this one.
        chunk: number of instances that are solved and written together.
        **options: the solver's own, such as `seconds`.

    Raises:
        UsageError: an argument is outside what is allowed, or the folder holds other labels.
        ImportError: the solver's package is not installed.
        RuntimeError: a worker process died; what was finished is kept.
    """
    problem, (name, function) = problem_named(problem), solver_named(problem, solver)
    check_options(name, function, options)
    for argument, value in (("workers", workers), ("chunk", chunk)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{argument} must be a positive integer, got {value!r}")
    place = None if folder is None else Path(folder)
    if place is not None:
        _open_folder(place, _manifest(problem, name, options, instances, chunk))
    parts = [list(instances[start : start + chunk]) for start in range(0, len(instances), chunk)]
    done: dict[int, _Chunk] = {}
    for number in range(len(parts)):
        if place is not None and _chunk_path(place, number).exists():
            done[number] = _read_chunk(_chunk_path(place, number))
    waiting = [number for number in range(len(parts)) if number not in done]
    with Progress(len(instances), "instance", sum(len(done[number].cost) for number in done), "labels") as bar:
        for number, result in _solved(problem, parts, waiting, name, options, workers):
            if place is not None:
                with replacing(_chunk_path(place, number)) as file:
                    np.savez(file, **result._asdict())
            done[number] = result
            bar.add(len(result.cost))
    ordered = [done[number] for number in range(len(parts))]
    rows = [row[row >= 0].tolist() for part in ordered for row in part.solution]
    costs = np.concatenate([part.cost for part in ordered]) if ordered else np.zeros(0)
    return Labels(padded(rows), costs, sum(part.cpu_seconds for part in ordered))


def _chunk_path(folder: Path, number: int) -> Path:
    return folder / f"chunk-{number:06d}.npz"


def _solved(
    problem: str,
    parts: list[list[PlainInstance]],
    waiting: list[int],
    solver: str,
    options: dict[str, Any],
    workers: int,
) -> Iterator[tuple[int, _Chunk]]:
    """Solve chunks and hand each out as soon as it is done."""
    if workers == 1 or len(waiting) < 2:
        for number in waiting:
            yield number, _solve_chunk(problem, parts[number], solver, options)
        return
    # forking a process in which torch runs threads may hang, so the workers start fresh
    with ProcessPoolExecutor(min(workers, len(waiting)), mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(_solve_chunk, problem, parts[n], solver, options): n for n in waiting}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a process that was solving instances died (out of memory?); finished chunks are kept in the folder, "
                "and the same call goes on from there"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def make_labels(
    task: ConstructionTask,
    count: int,
    seed: int = 0,
    solver: str | None = None,
    *,
    folder: Path | str | None = None,
    workers: int = 1,
    chunk: int = 256,
    **options: Any,
) -> tuple[Any, Labels]:
    """Draw instances of a task and solve them; see `label_instances` for the other arguments.

    Args:
        task: TSP, ATSP, CVRP, OP or Knapsack.
        count: number of instances.
        seed: instance i is that of the first episode of the environment with the seed `seed + i`.
        solver: a name in `SOLVERS[problem]`; None for the usual one.
        folder: where finished chunks are kept.
        workers: number of processes.
        chunk: number of instances that are written together.
        **options: the solver's own, such as `seconds`.

    Returns:
        The instances, a batch of tensors, and their labels.

    Raises:
        UsageError: an argument is outside what is allowed, or the folder holds other labels.
    """
    check_positive_int(count=count)
    seeds = torch.arange(seed, seed + count, device=task.device)
    instance = task.generate(make_keys(seeds, torch.zeros_like(seeds)))
    plain = [task.plain(instance, i) for i in range(count)]
    labels = label_instances(type(task).__name__, plain, solver, folder=folder, workers=workers, chunk=chunk, **options)
    return instance, labels
