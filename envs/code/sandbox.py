"""Running programs that nobody has read: a fresh, confined process for each, and the right answers elsewhere.

A warm process forks a process for every program; that process is locked in (limits, Landlock, seccomp, namespaces),
runs the program on inputs, and sends back plain data. It never holds what is right: values are compared by whoever
called. See docs/code.md for what this guarantees and what not.
"""

from __future__ import annotations

import os
import selectors
import sys
import time
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from polyathlon.envs.errors import UsageError, unknown_name

from .child.wire import encode
from .running import Limits, Outcome, Run
from .worker import SandboxError, Worker, bare_interpreter

__all__ = ["Isolation", "Job", "LAYERS", "Limits", "Outcome", "Result", "Sandbox", "SandboxError", "shared_sandbox"]

LAYERS = ("rlimits", "landlock", "seccomp", "namespaces")
REQUIRED = ("rlimits", "landlock", "seccomp")
_GRACE = 5.0
_ATTEMPTS = 3


@dataclass(frozen=True)
class Job:
    """A program and what to run it on.

    Attributes:
        program: source text.
        inputs: for kind "call" a sequence of argument lists; for "stdio" a sequence of texts for standard input.
        entry: name of the function to call, for kind "call".
        kind: "call" or "stdio".
        isolation: "sample", one process for all inputs, or "test", one for each ("stdio" always has one for each).
    """

    program: str
    inputs: Sequence[Any]
    entry: str = ""
    kind: str = "call"
    isolation: str = "sample"

    def __post_init__(self) -> None:
        for name, allowed in (("kind", ("call", "stdio")), ("isolation", ("sample", "test"))):
            if getattr(self, name) not in allowed:
                raise unknown_name(name, str(getattr(self, name)), allowed)
        if self.kind == "call" and not self.entry:
            raise UsageError("a job of kind 'call' needs entry, the name of the function to call")
        if not self.inputs:
            raise UsageError("a job needs at least one input")


@dataclass(frozen=True)
class Result:
    """What a program did.

    Attributes:
        outcomes: one for each input.
        stdout: what it printed, the first bytes of it, as text.
        stderr: the same of standard error.
        cpu_seconds: processor time of all its processes, as the kernel measured it.
        memory: largest size in bytes.
    """

    outcomes: list[Outcome]
    stdout: str
    stderr: str
    cpu_seconds: float
    memory: int


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


@dataclass
class _Sample:
    """A job on its way: the outcomes so far, and what its processes used."""

    job: Job
    number: int
    outcomes: list[Outcome] = field(default_factory=list)
    used: float = 0.0
    cpu_seconds: float = 0.0
    memory: int = 0
    printed: list[bytes] = field(default_factory=lambda: [b"", b""])
    failures: int = 0
    began: float = 0.0

    def next_job(self) -> dict[str, Any]:
        """Return the inputs that are still to be run, as the other side reads them."""
        job, done = self.job, len(self.outcomes)
        separate = job.kind == "stdio" or job.isolation == "test"
        inputs = job.inputs[done : done + 1] if separate else job.inputs[done:]
        common = {"kind": job.kind, "program": job.program, "entry": job.entry}
        if job.kind == "stdio":
            return {**common, "inputs": [], "input": inputs[0].encode("utf-8", "surrogatepass")}
        return {**common, "inputs": [encode(list(one), 1 << 24) for one in inputs], "input": None}

    def give_up(self, status: str, why: str) -> None:
        """Let the inputs that are left have a status without being run."""
        left = len(self.job.inputs) - len(self.outcomes)
        self.outcomes += [Outcome(status, error=why)] * left

    def result(self) -> Result:
        """Return what the program did."""
        texts = [data.decode("utf-8", "replace") for data in self.printed]
        return Result(self.outcomes, texts[0], texts[1], self.cpu_seconds, self.memory)


class Sandbox:
    """A pool of warm processes that run programs.

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
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise UsageError(f"workers must be a positive integer, got {workers!r}")
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

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": [], "_owner": 0, "_finalizer": None}

    @property
    def isolation(self) -> Isolation:
        """What holds programs here; starts a warm process if there is none.

        Raises:
            SandboxError: nothing starts, or the isolation is weak and that is not allowed.
        """
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
            worker = Worker(self.interpreter, self.layers)
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
            total_seconds: wall time for all of them; what has not run by then is "unrun".

        Returns:
            One result for each job, in their order.

        Raises:
            SandboxError: the sandbox itself fails, or its isolation is weak.
        """
        if not jobs:
            return []
        self._start(min(self.workers, len(jobs)))
        samples = [_Sample(job, number) for number, job in enumerate(jobs)]
        deadline = time.monotonic() + total_seconds if total_seconds is not None else float("inf")
        try:
            _Loop(self, samples, deadline).go()
        except BaseException:
            self.close()
            raise
        return [sample.result() for sample in samples]

    def replace(self, worker: Worker) -> Worker:
        """Start a warm process in the place of one that has died."""
        worker.process.kill()
        worker.close()
        fresh = Worker(self.interpreter, self.layers)
        self._pool[self._pool.index(worker)] = fresh
        return fresh

    def take(self, count: int) -> list[Worker]:
        """Return the first warm processes."""
        return list(self._pool[:count])

    def close(self) -> None:
        """End the warm processes; the next run starts new ones."""
        if self._owner == os.getpid():
            _close_all(self._pool)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Loop:
    """Runs samples on workers until all have ended."""

    def __init__(self, sandbox: Sandbox, samples: list[_Sample], deadline: float) -> None:
        self.sandbox, self.limits, self.deadline = sandbox, sandbox.limits, deadline
        self.waiting = deque(samples)
        self.running: dict[Worker, tuple[_Sample, Run]] = {}
        self.idle = sandbox.take(min(sandbox.workers, len(samples)))
        self.selector = selectors.PollSelector() if hasattr(selectors, "PollSelector") else selectors.SelectSelector()

    def go(self) -> None:
        """Run until nothing is left."""
        with self.selector:
            for worker in self.idle:
                self.selector.register(worker.control, selectors.EVENT_READ, (worker, "control"))
            while self.waiting or self.running:
                while self.waiting and self.idle:
                    self._begin(self.idle.pop(), self.waiting.popleft())
                if self.running:
                    self._wait()

    def _begin(self, worker: Worker, sample: _Sample) -> None:
        now = time.monotonic()
        left = min(self.limits.total_seconds - sample.used, self.deadline - now)
        if left <= 0:
            sample.give_up("unrun", "no time was left for it")
            self.idle.append(worker)
            return
        sample.began = now
        try:
            run = worker.begin(sample.next_job(), self.limits, left)
        except SandboxError:
            self._fail(worker, sample)
            return
        run.register(self.selector, worker)
        self.running[worker] = (sample, run)

    def _wait(self) -> None:
        now = time.monotonic()
        due = min(run.due + (_GRACE if run.is_ended else 0.0) for _, run in self.running.values())
        finished = []
        for key, events in self.selector.select(max(due - now, 0.0)):
            worker, source = key.data
            if worker not in self.running:
                continue
            run = self.running[worker][1]
            if source == "control":
                finished.append(worker)
                continue
            if events & selectors.EVENT_WRITE:
                run.write(self.selector, worker)
            if events & selectors.EVENT_READ:
                run.read(self.selector, source)
        for worker in finished:
            self._finish(worker)
        self._look_at_the_clock()

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        for worker, (sample, run) in list(self.running.items()):
            if run.ended_for and not run.is_ended:
                worker.end(run.ended_for)
            elif now >= run.due and not run.is_ended:
                worker.end("timeout")
            elif run.is_ended and now >= run.due + _GRACE:
                # the warm process itself does not answer
                self._fail(worker, sample)

    def _finish(self, worker: Worker) -> None:
        sample, run = self.running[worker]
        try:
            status, why, cpu, memory = worker.status()
        except SandboxError:
            self._fail(worker, sample)
            return
        run.close(self.selector)
        self._forget(worker)
        sample.used += time.monotonic() - sample.began
        sample.cpu_seconds += cpu
        sample.memory = max(sample.memory, memory)
        for i in (0, 1):
            sample.printed[i] = (sample.printed[i] + bytes(run.outputs[i]))[: self.limits.output]
        sample.outcomes += run.conclude(status, why or _WORDS.get(run.ended_for or "", ""))
        self.idle.append(worker)
        if len(sample.outcomes) < len(sample.job.inputs):
            self.waiting.appendleft(sample)

    def _forget(self, worker: Worker) -> None:
        del self.running[worker]
        worker.run = None

    def _fail(self, worker: Worker, sample: _Sample) -> None:
        """Replace a warm process that does not work, and run the sample again: once it may be to blame, not thrice."""
        if worker in self.running:
            self.running[worker][1].close(self.selector)
            self._forget(worker)
        self.selector.unregister(worker.control)
        sample.failures += 1
        fresh = self.sandbox.replace(worker)
        self.selector.register(fresh.control, selectors.EVENT_READ, (fresh, "control"))
        self.idle.append(fresh)
        if sample.failures < _ATTEMPTS:
            self.waiting.appendleft(sample)
        else:
            sample.give_up("crash", "the program takes the sandbox down")


_WORDS = {
    "timeout": "out of time",
    "output": "a flood of output",
    "forged": "records out of order",
}
_SHARED: weakref.WeakValueDictionary[tuple[Any, ...], Sandbox] = weakref.WeakValueDictionary()


def shared_sandbox(workers: int, limits: Limits, allow_weak: bool) -> Sandbox:
    """Return a sandbox with these options, the same for everyone in this process who asks for them."""
    key = (os.getpid(), workers, limits, allow_weak)
    found = _SHARED.get(key)
    if found is None:
        found = _SHARED[key] = Sandbox(workers, limits, allow_weak=allow_weak)
    return found


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
