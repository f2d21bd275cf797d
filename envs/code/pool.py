"""Running many programs on warm processes at once: one loop over all their descriptors, no threads."""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from polyathlon.envs.errors import UsageError, unknown_name

from .child.wire import NotPlainError, encode
from .running import LONGEST_INPUT, SLOWEST, STARVED, Limits, Run, RunResult
from .worker import KILLED, SandboxError, Worker

_GRACE = 5.0
_ATTEMPTS = 3
# seconds that a process may take to start on a busy machine; they are not the program's
_START = 0.25
# seconds for the warm process to say how busy the machine is
_ANSWER = 1.0
_RECORDS, _CONTROL = 0, 1
_READ = select.POLLIN if hasattr(select, "poll") else 1
_WORDS = {"timeout": "out of time", "forged": "records out of order"}


@dataclass(frozen=True)
class Job:
    """A program and what to run it on.

    Attributes:
        program: source text.
        inputs: for kind "call" a sequence of argument lists; for "stdio" a sequence of texts for standard input.
        entry: name of the function to call, for kind "call".
        kind: "call" or "stdio".
        isolation: "sample", one process for all inputs, or "test", one for each ("stdio" always has one for each).
        otherwise: what is run where `program` cannot be compiled; None: nothing.
        as_base: values of subclasses of plain types come back as those types, a Counter as a dict.
    """

    program: str
    inputs: Sequence[Any]
    entry: str = ""
    kind: str = "call"
    isolation: str = "sample"
    otherwise: str | None = None
    as_base: bool = False

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
        is_final: the machine had no part in it, so that another run ends alike. Not so where the sandbox failed or
            the time of the call was up, another process ended the program, or the machine was too busy to give it
            half of its time.
    """

    outcomes: list[RunResult]
    stdout: str
    stderr: str
    cpu_seconds: float
    memory: int
    is_final: bool = True


@dataclass
class Sample:
    """A job on its way: the outcomes so far, and what its processes used.

    Of the seconds used, `own_seconds` are surely the program's: it computed, or the kernel was asked and said so.
    """

    job: Job
    outcomes: list[RunResult] = field(default_factory=list)
    used: float = 0.0
    own_seconds: float = 0.0
    is_final: bool = True
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
        common: dict[str, Any] = {"kind": job.kind, "program": job.program, "entry": job.entry}
        common |= {"otherwise": job.otherwise, "as_base": job.as_base}
        if job.kind == "stdio":
            return {**common, "inputs": [], "input": inputs[0].encode("utf-8", "surrogatepass")}
        return {**common, "inputs": [encode(list(one), LONGEST_INPUT) for one in inputs], "input": None}

    def give_up(self, status: str, why: str) -> None:
        """Let the inputs that are left have a status without being run."""
        left = len(self.job.inputs) - len(self.outcomes)
        self.outcomes += [RunResult(status, error=why)] * left

    def result(self) -> Result:
        """Return what the program did."""
        texts = [data.decode("utf-8", "replace") for data in self.printed]
        return Result(self.outcomes, texts[0], texts[1], self.cpu_seconds, self.memory, self.is_final)


class Pool:
    """Runs samples on warm processes until all have ended.

    Args:
        workers: the warm processes.
        replace: returns a warm process in the place of one that has died.
        limits: what one program may use.
        samples: the programs.
        deadline: when no more programs are begun, on the monotonic clock.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        replace: Callable[[Worker], Worker],
        limits: Limits,
        samples: Sequence[Sample],
        deadline: float,
    ) -> None:
        self.limits, self.deadline, self.replace = limits, deadline, replace
        self.waiting = deque(samples)
        self.running: dict[Worker, tuple[Sample, Run]] = {}
        self.idle = list(workers)
        self.poll = select.poll()
        self.watched: dict[int, tuple[Worker, int]] = {}

    def go(self) -> None:
        """Run until nothing is left."""
        for worker in self.idle:
            self._watch(worker)
        while self.waiting or self.running:
            while self.waiting and self.idle:
                self._begin(self.idle.pop(), self.waiting.popleft())
            if self.running:
                self._wait()

    def _watch(self, worker: Worker) -> None:
        for source, descriptor in ((_RECORDS, worker.records), (_CONTROL, worker.control.fileno())):
            self.poll.register(descriptor, _READ)
            self.watched[descriptor] = (worker, source)

    def _exchange(self, worker: Worker) -> Worker:
        """Put a new warm process in the place of one that has died."""
        for descriptor in (worker.records, worker.control.fileno()):
            del self.watched[descriptor]
            self.poll.unregister(descriptor)
        fresh = self.replace(worker)
        self._watch(fresh)
        return fresh

    def _begin(self, worker: Worker, sample: Sample) -> None:
        now = time.monotonic()
        left = min(self.limits.total_seconds - sample.used, self.deadline - now)
        if left <= 0:
            sample.is_final &= sample.own_seconds >= self.limits.total_seconds
            sample.give_up("unrun", "no time was left for it")
            self.idle.append(worker)
            return
        sample.began = now
        asked = sample.next_job()
        try:
            run = worker.begin(asked, self.limits, left)
        except NotPlainError as error:  # texts and bytes are plain data, so they are too large
            sample.give_up("unplain", f"the program with its inputs is {error}")
            self.idle.append(worker)
            return
        except SandboxError:
            self._fail(worker, sample)
            return
        self.running[worker] = (sample, run)

    def _wait(self) -> None:
        now = time.monotonic()
        due = min(
            run.due + (_GRACE if run.is_ended else _ANSWER if run.is_asked else 0.0) for _, run in self.running.values()
        )
        finished = []
        for descriptor, _ in self.poll.poll(1000 * max(due - now, 0.0) + 1):
            worker, source = self.watched[descriptor]
            if source == _CONTROL:
                finished.append(worker)
            elif worker in self.running:
                self.running[worker][1].read()
        for worker in finished:
            self._hear(worker)
        self._look_at_the_clock()

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        for worker, (sample, run) in list(self.running.items()):
            if run.is_ended:
                if now >= run.due + _GRACE:  # the warm process itself does not answer
                    self._fail(worker, sample)
            elif run.ended_for:
                worker.end(run.ended_for)
            elif now >= run.due + (_ANSWER if run.is_asked else 0.0):
                if run.is_asked:
                    run.is_starved = True  # nobody has said how long it ran
                    worker.end("timeout")
                else:
                    run.is_asked = True
                    worker.ask()

    def _hear(self, worker: Worker) -> None:
        if worker not in self.running:  # it has died while it was idle
            if worker in self.idle:
                self.idle.remove(worker)
                self.idle.append(self._exchange(worker))
            return
        sample, run = self.running[worker]
        try:
            used, ended = worker.hear()
            if ended is not None:
                self._finish(worker, sample, run, *worker.status(ended))
                return
        except SandboxError:
            self._fail(worker, sample)
            return
        if used is not None:
            run.slower = max(run.slower, min(run.stretch(used), SLOWEST))
            if time.monotonic() >= run.due:
                run.is_starved = run.share(used) < STARVED
                worker.end("timeout")
            else:
                run.is_asked = False

    def _finish(
        self, worker: Worker, sample: Sample, run: Run, status: str | None, why: str, cpu: float, memory: int
    ) -> None:
        run.close()
        self._forget(worker)
        wall = (time.monotonic() - sample.began) / run.slower
        sample.used += max(wall - _START, cpu)
        sample.own_seconds += max(wall - _START, cpu) if run.ended_for == "timeout" else cpu
        if run.is_starved or (run.ended_for is None and (status == "timeout" or why == KILLED)):
            sample.is_final = False
        sample.cpu_seconds += cpu
        sample.memory = max(sample.memory, memory)
        for i in (0, 1):
            if run.outputs[i]:
                sample.printed[i] = (sample.printed[i] + run.outputs[i])[: self.limits.output]
        sample.outcomes += run.conclude(status, _WORDS.get(run.ended_for or "", why))
        self.idle.append(worker)
        if len(sample.outcomes) < len(sample.job.inputs):
            self.waiting.appendleft(sample)

    def _forget(self, worker: Worker) -> None:
        del self.running[worker]
        worker.run = None

    def _fail(self, worker: Worker, sample: Sample) -> None:
        """Replace a warm process that does not work, and run the sample again: it may not be to blame, but not thrice."""
        if worker in self.running:
            self._forget(worker)
        sample.failures += 1
        self.idle.append(self._exchange(worker))
        if sample.failures < _ATTEMPTS:
            self.waiting.appendleft(sample)
        else:
            sample.is_final = False
            sample.give_up("crash", "the program takes the sandbox down")
