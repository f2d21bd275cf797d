"""Running programs that nobody has read: a fresh, confined process for each, and the right answers elsewhere.

A warm process forks a process for every program; that process is locked in (limits, Landlock, seccomp, namespaces),
runs the program on inputs, and sends back plain data. It never holds what is right: values are compared by whoever
called. See docs/code.md for what this guarantees and what not.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from polyathlon.envs.errors import UsageError, check_positive_int, unknown_name

from .pool import Job, Pool, Result, Sample
from .running import Limits, RunResult
from .worker import SandboxError, Worker, bare_interpreter, stack_size

__all__ = ["Isolation", "Job", "LAYERS", "Limits", "Result", "RunResult", "Sandbox", "SandboxError", "shared_sandbox"]

LAYERS = ("rlimits", "landlock", "seccomp", "namespaces")
REQUIRED = ("rlimits", "landlock", "seccomp")


@dataclass(frozen=True)
class Isolation:
    """What holds a program on this machine.

    Attributes:
        active: layer -> what is in force.
        missing: layer -> why it is not.
    """

    active: dict[str, str]
    missing: dict[str, str]

    @property
    def level(self) -> str:
        """Return "full" when limits, Landlock and seccomp hold, else "weak"."""
        return "weak" if set(REQUIRED) & set(self.missing) else "full"

    def as_dict(self) -> dict[str, Any]:
        """Return it as `info["isolation"]` holds it."""
        return {"level": self.level, "active": dict(self.active), "missing": dict(self.missing)}


_EVERY: weakref.WeakSet[Sandbox] = weakref.WeakSet()


class Sandbox:
    """A pool of warm processes that run programs; threads that share one take turns.

    Args:
        workers: how many programs run at once; so many times `limits.memory` is the bound of memory in all.
        limits: what one program may use.
        layers: layers of isolation to put on; leaving one out that is required makes the isolation weak.
        allow_weak: run programs also where limits, Landlock or seccomp are missing.
        interpreter: path of the Python that runs programs; None: the one that runs this.

    Raises:
        UsageError: an argument is impossible.
        SandboxError: at the first run, when the isolation is weak and `allow_weak` is not set, or nothing starts.
    """

    def __init__(
        self,
        workers: int = 1,
        limits: Limits | None = None,
        layers: Sequence[str] = LAYERS,
        allow_weak: bool = False,
        interpreter: str | None = None,
    ) -> None:
        check_positive_int(workers=workers)
        for name in layers:
            if name not in LAYERS:
                raise unknown_name("layer", name, LAYERS)
        self.workers, self.limits, self.allow_weak = workers, limits or Limits(), allow_weak
        _check(self.limits)
        self.layers = tuple(name for name in LAYERS if name in layers)
        self.interpreter = interpreter or bare_interpreter()
        self._pool: list[Worker] = []
        self._owner = 0
        self._finalizer: weakref.finalize[Any, Any] | None = None
        self._renew_lock()

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()
        _EVERY.add(self)

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.__dict__.items() if name != "_lock"}
        return {**kept, "_pool": [], "_owner": 0, "_finalizer": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._renew_lock()

    @property
    def isolation(self) -> Isolation:
        """What holds programs here; starts a warm process if there is none.

        Raises:
            SandboxError: nothing starts, or the isolation is weak and that is not allowed.
        """
        with self._lock:
            self._start(1)
            report = self._pool[0].report
        return Isolation(report["active"], report["missing"])

    def _start(self, count: int) -> None:
        if self._owner != os.getpid():
            # in a forked process: the warm processes belong to the one that started them
            for worker in self._pool:
                worker.close()
            self._pool, self._owner = [], os.getpid()
            self._finalizer = weakref.finalize(self, _close_all, self._pool)
        while len(self._pool) < count:
            if os.name != "posix":
                raise SandboxError("programs are run by forking, which this system cannot: use Linux, or macOS")
            worker = self._make()
            isolation = Isolation(worker.report["active"], worker.report["missing"])
            if isolation.level == "weak" and not self.allow_weak:
                worker.close()
                raise SandboxError(_weakness(isolation))
            self._pool.append(worker)

    def run(self, job: Job) -> Result:
        """Run one program.

        Raises:
            SandboxError: the sandbox itself fails, or its isolation is weak.
        """
        return self.run_many([job])[0]

    def run_many(self, jobs: Sequence[Job], total_seconds: float | None = None) -> list[Result]:
        """Run programs, as many at once as there are workers.

        Args:
            jobs: the programs.
            total_seconds: wall time for all of them, from when this thread has its turn; what has not run by then is
                "unrun".

        Returns:
            One result for each job, in their order.

        Raises:
            SandboxError: the sandbox itself fails, or its isolation is weak.
        """
        if not jobs:
            return []
        samples = [Sample(job) for job in jobs]
        with self._lock:
            self._start(min(self.workers, len(jobs)))
            deadline = time.monotonic() + total_seconds if total_seconds is not None else float("inf")
            workers = self._pool[: min(self.workers, len(jobs))]
            try:
                Pool(workers, self._replace, self.limits, samples, deadline).go()
            except BaseException:
                self.close()
                raise
        return [sample.result() for sample in samples]

    def _make(self) -> Worker:
        memory = int(self.limits.memory)
        return Worker(self.interpreter, self.layers, memory, stack_size(memory, int(self.limits.threads)))

    def _replace(self, worker: Worker) -> Worker:
        worker.process.kill()
        worker.close()
        fresh = self._make()
        self._pool[self._pool.index(worker)] = fresh
        return fresh

    def close(self) -> None:
        """End the warm processes, once no other thread uses them; the next run starts new ones."""
        with self._lock:
            if self._owner == os.getpid():
                _close_all(self._pool)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


_SHARED: weakref.WeakValueDictionary[tuple[Any, ...], Sandbox] = weakref.WeakValueDictionary()
_SHARING = threading.Lock()


def shared_sandbox(workers: int, limits: Limits, allow_weak: bool) -> Sandbox:
    """Return a sandbox with these options, the same for everyone in this process who asks for them."""
    key = (os.getpid(), workers, limits, allow_weak)
    with _SHARING:
        found = _SHARED.get(key)
        if found is None:
            found = _SHARED[key] = Sandbox(workers, limits, allow_weak=allow_weak)
    return found


def _after_fork() -> None:
    """Give a forked process locks of its own: a thread that held one is not in it."""
    global _SHARING
    _SHARING = threading.Lock()
    for sandbox in list(_EVERY):
        sandbox._renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _close_all(pool: list[Worker]) -> None:
    while pool:
        pool.pop().close()


def _check(limits: Limits) -> None:
    for name in ("seconds", "total_seconds", "memory", "output", "value", "threads"):
        value = getattr(limits, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise UsageError(f"the limit {name} must be a positive number, got {value!r}")


def _weakness(isolation: Isolation) -> str:
    lacking = "; ".join(f"{name}: {why}" for name, why in isolation.missing.items() if name in REQUIRED)
    where = "" if sys.platform == "linux" else f" ({sys.platform} has no full isolation)"
    return (
        f"programs would run with weak isolation{where}: {lacking}. `polyathlon sandbox doctor` says how to get the "
        "missing layers; allow_weak=True runs programs all the same, which then could read and change your files"
    )
