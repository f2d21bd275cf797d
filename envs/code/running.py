"""One run of a program in a fresh process: what goes in, what comes out, and when it must end."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from . import plain
from .child import wire
from .child.wire import HEADER

_READ = 1 << 16
# bytes of output that are kept of a program where nothing else is said, of the arguments of a call, and of an error
LONGEST_OUTPUT, LONGEST_INPUT, _LONGEST_ERROR = 1 << 16, 1 << 24, 1 << 12
# on a machine that is too busy to run a program, it gets so many times its wall time at most
SLOWEST = 4.0
# a program that had less than this part of the elapsed time its own has not had half of its time even so
STARVED = 0.5 / SLOWEST


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    Attributes:
        seconds: wall time for each input, the first one's including the program's start. Where the machine is too busy
            to run the program, the time that it waits for a processor does not count, up to four times as long; a
            program that sleeps needs none, so that it gets no longer.
        total_seconds: wall time for all inputs of a program, without a quarter of a second to start each process.
        memory: bytes of address space beyond the bare interpreter's.
        output: bytes of standard output and of standard error that are kept.
        value: bytes of one returned value.
        threads: number of threads.
    """

    seconds: float = 3.0
    total_seconds: float = 15.0
    memory: int = 512 << 20
    output: int = LONGEST_OUTPUT
    value: int = plain.MAX_SIZE
    threads: int = 64


@dataclass(frozen=True)
class RunResult:
    """What a program made of one input.

    Attributes:
        status: "ok", "error" (it raised), "unplain" (no plain data, or too much), "timeout", "crash" (ended by a
            signal), "exit" (left without an answer), "threads", "forged" (records out of order),
            "unrun" (no time was left for it).
        data: the returned value, or what was printed on standard output, as `plain.encode` writes it, where the
            status is "ok". It comes from the program's process and may be malformed.
        error: name and message of the exception, or why there is no value.
        seconds: wall time until the answer.
    """

    status: str
    data: bytes = b""
    error: str = ""
    seconds: float = 0.0

    @property
    def value(self) -> Any:
        """The value, with small sets and dicts as Python's own.

        Raises:
            NotPlainError: there is none, or the bytes are malformed.
        """
        return plain.natural(plain.decode(self.data))


class Files(NamedTuple):
    """Descriptors of a run on this side: the pipe of the records, the files of standard output and standard error."""

    records: int
    out: int
    err: int


class Scheduled(NamedTuple):
    """How the kernel has let a process run, since its start.

    Attributes:
        ran: seconds on a processor.
        waited: seconds in which it could have run, but had none.
        left: how often it has left a processor by itself, to sleep or to wait for something.
        taken: how often a processor was taken from it.
    """

    ran: float
    waited: float
    left: int
    taken: int


@dataclass
class Run:
    """A running process, and what has been read from it.

    Args:
        files: its descriptors, which the runs of one warm process share one after the other.
        nonce: what every record must carry.
        count: number of inputs.
        limits: what the program may use.
        deadline: when everything must be over.
        prints: the answer is what is printed.
    """

    files: Files
    nonce: bytes
    count: int
    limits: Limits
    deadline: float
    prints: bool
    outcomes: list[RunResult] = field(default_factory=list)
    outputs: tuple[bytes, bytes] = (b"", b"")
    load_error: str | None = None
    is_done: bool = False
    ended_for: str | None = None
    is_ended: bool = False
    is_asked: bool = False
    is_starved: bool = False
    slower: float = 1.0
    _buffer: bytearray = field(default_factory=bytearray)
    _printed_bytes: int = 0
    _began: float = field(default_factory=time.monotonic)
    _last: float = field(default_factory=time.monotonic)

    @property
    def due(self) -> float:
        """When the process must have said something, or be ended."""
        more = self.slower - 1.0
        return min(self._last + self.slower * self.limits.seconds, self.deadline + more * (self.deadline - self._began))

    def share(self, used: Scheduled) -> float:
        """Return the part of the elapsed time that was the program's own: it ran, or slept of its own accord.

        Waiting counts as far as the program needed the processor: what came after it was taken away, or up to three
        times (`SLOWEST` - 1) the time that it ran. The rest is what a sleeper waits at every waking.
        """
        switches = used.left + used.taken
        needed = used.waited * (used.taken / switches if switches else 1.0)
        excused = min(used.waited, max(needed, (SLOWEST - 1.0) * used.ran))
        elapsed = max(time.monotonic() - self._began, 1e-9)
        return max(elapsed - excused, 0.0) / elapsed

    def stretch(self, used: Scheduled) -> float:
        """Return how many times longer than on an idle machine the process takes, `SLOWEST` at most."""
        return 1.0 / max(self.share(used), 1.0 / SLOWEST)

    def read(self) -> bool:
        """Read records; return whether there were any."""
        try:
            data = os.read(self.files.records, _READ)
        except BlockingIOError:
            return False
        self._buffer += data
        self._parse()
        return bool(data)

    def end(self, why: str) -> None:
        """Note why the process must end; the first reason counts."""
        self.ended_for = self.ended_for or why

    def _parse(self) -> None:
        while self.ended_for is None and len(self._buffer) >= HEADER:
            nonce, kind, index, length = wire.header_of(self._buffer)
            if nonce != self.nonce or index != len(self.outcomes) or self.is_done or length > self.limits.value:
                self.end("forged")
                return
            if len(self._buffer) < HEADER + length:
                return
            payload = bytes(self._buffer[HEADER : HEADER + length])
            del self._buffer[: HEADER + length]
            self._take(kind, index, payload)

    def _take(self, kind: int, index: int, payload: bytes) -> None:
        now = time.monotonic()
        if kind == wire.DONE and index == self.count and not payload:
            self.is_done = True
        elif kind == wire.LOAD_ERROR and index == 0:
            self.load_error = _error(payload)
            self.is_done = True
        elif kind in (wire.VALUE, wire.UNPLAIN, wire.ERROR) and index < self.count:
            self.outcomes.append(_outcome(kind, payload, now - self._last))
        else:
            self.end("forged")
        self._last = now

    def close(self) -> None:
        """Take what the ended process has left, and leave the files empty for the next one."""
        while self.read():
            if self.ended_for == "forged":
                self._buffer.clear()
        self.outputs = (self._take_output(self.files.out), self._take_output(self.files.err))

    def _take_output(self, descriptor: int) -> bytes:
        size = os.fstat(descriptor).st_size
        if not size:
            return b""
        if descriptor == self.files.out:
            self._printed_bytes = size
        data = os.pread(descriptor, min(size, self.limits.output), 0)
        os.ftruncate(descriptor, 0)
        return data

    def conclude(self, status: str | None, why: str) -> list[RunResult]:
        """Return the outcomes of the inputs that were reached.

        Args:
            status: how the process ended where that was no regular end, else None.
            why: the same in words.

        Returns:
            Outcomes of the first inputs; fewer than there are inputs when the process ended before.
        """
        status = self.ended_for or status
        if self.ended_for == "forged":
            return [RunResult("forged", error="records out of order")] * self.count
        if self.load_error is not None and status is None:
            return [RunResult("error", error=self.load_error)] * self.count
        found = list(self.outcomes)
        if status is None and not self.is_done:
            status, why = "exit", "the program left before it had answered"
        if status is not None and (len(found) < self.count or self.prints):
            del found[self.count - 1 :]
            found.append(RunResult(status, error=why, seconds=time.monotonic() - self._last))
        elif status is not None:
            # every answer is there, but the end is not: the last one does not count
            found[-1] = RunResult(status, error=why)
        if self.prints and found and found[-1].status == "ok":
            found[-1] = self._printed(found[-1])
        return found

    def _printed(self, outcome: RunResult) -> RunResult:
        if self._printed_bytes > len(self.outputs[0]):
            return RunResult("unplain", error=f"more than {self.limits.output} bytes were printed")
        text = self.outputs[0].decode("utf-8", "replace")
        return RunResult("ok", plain.encode(text, 4 * self.limits.output + 8), seconds=outcome.seconds)


def _error(payload: bytes) -> str:
    try:
        if len(payload) > _LONGEST_ERROR:  # no error that the runner has written is that long
            return "an error that cannot be read"
        name, message = plain.decode(payload)
        return f"{str(name)[:80]}: {str(message)[: 2 * 300]}".strip(": ")
    except (plain.NotPlainError, TypeError, ValueError):
        return "an error that cannot be read"


def _outcome(kind: int, payload: bytes, seconds: float) -> RunResult:
    if kind == wire.VALUE:
        return RunResult("ok", payload, seconds=seconds)
    return RunResult("error" if kind == wire.ERROR else "unplain", error=_error(payload), seconds=seconds)
