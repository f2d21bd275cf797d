"""One run of a program in a fresh process: what goes in, what comes out, and when it must end."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from typing import Any

from . import plain
from .child import wire

_HEADER = wire.RECORD.size
_READ = 1 << 16
_FLOOD = 16 << 20


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    Attributes:
        seconds: wall time for each input, the first one's including the program's start.
        total_seconds: wall time for all inputs of a program.
        memory: bytes of address space beyond the bare interpreter's.
        output: bytes of standard output and of standard error that are kept.
        value: bytes of one returned value.
        threads: number of threads.
    """

    seconds: float = 3.0
    total_seconds: float = 15.0
    memory: int = 512 << 20
    output: int = 1 << 16
    value: int = plain.MAX_SIZE
    threads: int = 64


@dataclass(frozen=True)
class Outcome:
    """What a program made of one input.

    Attributes:
        status: "ok", "error" (it raised), "unplain" (no plain data, or too much), "timeout", "crash" (ended by a
            signal), "exit" (left without an answer), "threads", "output" (flood), "forged" (records out of order),
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


@dataclass
class Run:
    """A running process: its descriptors on this side, and what has been read from them.

    Args:
        channel: socket of the job and its records.
        out: standard output of the program.
        err: standard error of the program.
        job: bytes still to be written.
        nonce: what every record must carry.
        count: number of inputs.
        limits: what the program may use.
        deadline: when everything must be over.
        prints: the answer is what is printed.
    """

    channel: socket.socket
    out: int
    err: int
    job: memoryview
    nonce: bytes
    count: int
    limits: Limits
    deadline: float
    prints: bool
    started: float = field(default_factory=time.monotonic)
    outcomes: list[Outcome] = field(default_factory=list)
    outputs: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))
    load_error: str | None = None
    is_done: bool = False
    ended_for: str | None = None
    is_ended: bool = False
    _buffer: bytearray = field(default_factory=bytearray)
    _written: list[int] = field(default_factory=lambda: [0, 0])
    _last: float = 0.0

    def __post_init__(self) -> None:
        self._last = self.started
        self.descriptors = (self.channel.fileno(), self.out, self.err)

    @property
    def due(self) -> float:
        """When the process must have said something, or be ended."""
        return min(self._last + self.limits.seconds, self.deadline)

    def write(self) -> bool:
        """Write what the socket takes of the job; return whether that was all."""
        try:
            self.job = self.job[self.channel.send(self.job) :]
        except BlockingIOError:
            return False
        except OSError:
            self.job = self.job[:0]
        return not self.job

    def read(self, source: int) -> int:
        """Read once from the channel (0), standard output (1) or standard error (2).

        Returns:
            The number of bytes; 0 at the end, -1 when there is nothing now.
        """
        try:
            data = os.read(self.descriptors[source], _READ)
        except BlockingIOError:
            return -1
        except OSError:
            return 0
        if not data:
            return 0
        if source == 0:
            self._buffer += data
            self._parse()
        else:
            i = source - 1
            self._written[i] += len(data)
            self.outputs[i].extend(data[: max(self.limits.output - len(self.outputs[i]), 0)])
            if self._written[i] > _FLOOD:
                self.end("output")
        return len(data)

    def end(self, why: str) -> None:
        """Note why the process must end; the first reason counts."""
        self.ended_for = self.ended_for or why

    def _parse(self) -> None:
        while self.ended_for is None and len(self._buffer) >= _HEADER:
            nonce, kind, index, length = wire.RECORD.unpack_from(self._buffer)
            if nonce != self.nonce or index != len(self.outcomes) or self.is_done or length > self.limits.value:
                self.end("forged")
                return
            if len(self._buffer) < _HEADER + length:
                return
            payload = bytes(self._buffer[_HEADER : _HEADER + length])
            del self._buffer[: _HEADER + length]
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
        """Read what is left, and close."""
        for source, descriptor in enumerate(self.descriptors):
            while self.read(source) > 0 and self.ended_for != "output":
                pass
            if source:
                os.close(descriptor)
        self.channel.close()

    def conclude(self, status: str | None, why: str) -> list[Outcome]:
        """Return the outcomes of the inputs that were reached.

        Args:
            status: how the process ended where that was no regular end, else None.
            why: the same in words.

        Returns:
            Outcomes of the first inputs; fewer than there are inputs when the process ended before.
        """
        status = self.ended_for or status
        if self.ended_for == "forged":
            return [Outcome("forged", error="records out of order")] * self.count
        if self.load_error is not None and status is None:
            return [Outcome("error", error=self.load_error)] * self.count
        found = list(self.outcomes)
        if status is None and not self.is_done:
            status, why = "exit", "the program left before it had answered"
        if status is not None and (len(found) < self.count or self.prints):
            del found[self.count - 1 :]
            found.append(Outcome(status, error=why, seconds=time.monotonic() - self._last))
        elif status is not None:
            # every answer is there, but the end is not: the last one does not count
            found[-1] = Outcome(status, error=why)
        if self.prints and found and found[-1].status == "ok":
            found[-1] = self._printed(found[-1])
        return found

    def _printed(self, outcome: Outcome) -> Outcome:
        if self._written[0] > len(self.outputs[0]):
            return Outcome("unplain", error=f"more than {self.limits.output} bytes were printed")
        text = bytes(self.outputs[0]).decode("utf-8", "replace")
        return Outcome("ok", plain.encode(text, 4 * self.limits.output + 8), seconds=outcome.seconds)


def _error(payload: bytes) -> str:
    try:
        name, message = plain.decode(payload)
        return f"{str(name)[:80]}: {str(message)[: 2 * 300]}".strip(": ")
    except (plain.NotPlainError, TypeError, ValueError):
        return "an error that cannot be read"


def _outcome(kind: int, payload: bytes, seconds: float) -> Outcome:
    if kind == wire.VALUE:
        return Outcome("ok", payload, seconds=seconds)
    return Outcome("error" if kind == wire.ERROR else "unplain", error=_error(payload), seconds=seconds)
