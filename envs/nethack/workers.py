"""Blocks of games in several processes: their arrays lie in memory that all share, and a step sends a few bytes."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .block import Block, shapes
from .settings import LEVEL_SHAPE, Settings

BEGIN, STEP, DRAW, WAIT, QUIT = b"b", b"s", b"d", b"w", b"q"
DONE, FAILED = b".", b"!"
SECONDS_TO_QUIT = 5.0
# to wake a process that sleeps takes some 60 us, an eighth of a step of 16 games: who waits asks that long before it sleeps
SECONDS_AWAKE = 1e-4
_ALIGNMENT = 64
_LENGTH = struct.Struct("<I")
Link = tuple["subprocess.Popen[bytes]", socket.socket]
_COMMAND = struct.Struct("<cBI")  # what to do, number of the command, a row
_ANSWER = struct.Struct("<cBI")  # whether it worked, number of the command, bytes of the message that follows


class WorkerError(RuntimeError):
    """A worker process failed or is gone."""


class Workers:
    """The rows of several blocks, the first in this process and each other in one of its own; used as one `Block`.

    A process holds a block of games, never one game: it wakes once a step. What the games show is read where they wrote
    it. The processes end with this one, whatever ends it.

    Args:
        settings: the task.
        rows: number of rows.
        workers: number of blocks, at most one a row.

    Attributes:
        arrays: of all rows, see `block.allocate`.
        bounds: first row of each block, and the number of rows.
        own: the block that this process plays.
    """

    def __init__(self, settings: Settings, rows: int, workers: int) -> None:
        layout, size = _layout(settings, rows)
        with tempfile.TemporaryFile(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as file:
            file.truncate(size)
            descriptor = file.fileno()
            self.arrays = _arrays(descriptor, size, layout)
            self._frame = self.arrays.pop("frame")[0]
            self.bounds: list[int] = np.linspace(0, rows, min(workers, rows) + 1).astype(int).tolist()
            self._links: list[Link] = []
            self._number, self._is_waiting = 0, False
            self._stop = weakref.finalize(self, _stop, os.getpid(), self._links)
            for first, last in itertools.pairwise(self.bounds[1:]):
                job = (settings, layout, size, descriptor, first, last)
                self._links.append(_launch(job, descriptor))
        try:
            self.own = Block(settings, {name: array[: self.bounds[1]] for name, array in self.arrays.items()})
            self._collect(self._links)
        except BaseException:
            self.close()
            raise

    @property
    def processes(self) -> list[subprocess.Popen[bytes]]:
        """The worker processes, without this one."""
        return [process for process, _ in self._links]

    def begin(self) -> None:
        """Begin a game in every active row."""
        self._do(BEGIN, self.own.begin)

    def step(self) -> None:
        """Press the key of every active row."""
        self._do(STEP, self.own.step)

    def wait(self) -> None:
        """Wait for what an interrupt (Ctrl-C) left running, whose answers nobody read; the games are then between steps."""
        if self._is_waiting:
            self._call(WAIT, self._links)

    def draw_level(self, row: int, frame: np.ndarray) -> None:
        """Draw the level of a row into `frame`."""
        number = int(np.searchsorted(self.bounds, row, side="right")) - 1
        self.wait()
        if number == 0:
            self.own.draw_level(row, frame)
            return
        self._call(DRAW, [self._links[number - 1]], row - self.bounds[number])
        frame[...] = self._frame

    def _do(self, command: bytes, play: Callable[[], None]) -> None:
        active = self.arrays["active"]
        is_called = [active[first:last].any() for first, last in itertools.pairwise(self.bounds)]
        called = [link for link, wanted in zip(self._links, is_called[1:], strict=True) if wanted]
        self._call(command, called, play=play if is_called[0] else None)

    def _call(
        self, command: bytes, called: Sequence[Link], row: int = 0, play: Callable[[], None] | None = None
    ) -> None:
        """Send a command, `play` the games of this process, and wait for the answers; those of interrupted commands are passed over."""
        self._number, self._is_waiting = (self._number + 1) % 256, True
        try:
            for _, link in called:
                link.sendall(_COMMAND.pack(command, self._number, row))
        except OSError as error:
            raise _gone() from error
        if play is not None:
            play()
        self._collect(called)
        self._is_waiting = False

    def _collect(self, called: Sequence[Link]) -> None:
        failures = []
        for _, link in called:
            number, answer, text = -1, DONE, b""
            try:
                while number != self._number:
                    answer, number, length = _ANSWER.unpack(_read_soon(link, _ANSWER.size))
                    text = _read(link, length)
            except (ConnectionError, EOFError) as error:
                raise _gone() from error
            if answer == FAILED:
                failures.append(text.decode())
        if failures:
            self._is_waiting = False
            raise WorkerError(failures[0])

    def close(self) -> None:
        """End the processes and give back the games; a second call does nothing."""
        self._stop()
        if hasattr(self, "own"):
            self.own.close()


def _gone() -> WorkerError:
    return WorkerError(
        "a worker process of the NetHack games is gone (killed, or out of memory); make the environment anew"
    )


def _stop(owner: int, links: list[Link]) -> None:
    if os.getpid() != owner:
        return
    for _, link in links:
        with contextlib.suppress(OSError):
            link.sendall(_COMMAND.pack(QUIT, 0, 0))
        link.close()
    for process, _ in links:
        try:
            process.wait(SECONDS_TO_QUIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _launch(job: Any, descriptor: int) -> Link:
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", "polyathlon.envs.nethack.workers", str(theirs.fileno())]
        path = os.pathsep.join(entry for entry in sys.path if entry)
        process = subprocess.Popen(
            command,
            pass_fds=(theirs.fileno(), descriptor),
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
        )
    content = pickle.dumps(job)
    ours.sendall(_LENGTH.pack(len(content)) + content)
    return process, ours


def _layout(settings: Settings, rows: int) -> tuple[dict[str, tuple[int, tuple[int, ...], str]], int]:
    """Place every array in one stretch of memory: name -> (offset, shape, type), and its size."""
    wanted = {name: ((rows, *shape), np.dtype(kind)) for name, (shape, kind) in shapes(settings).items()}
    wanted["frame"] = ((1, *LEVEL_SHAPE), np.dtype(np.uint8))
    layout, end = {}, 0
    for name, (shape, kind) in wanted.items():
        layout[name] = (end, shape, kind.str)
        size = int(np.prod(shape)) * kind.itemsize
        end += -(-size // _ALIGNMENT) * _ALIGNMENT
    return layout, end


def _arrays(descriptor: int, size: int, layout: dict[str, tuple[int, tuple[int, ...], str]]) -> dict[str, np.ndarray]:
    memory = mmap.mmap(descriptor, size)
    return {
        name: np.frombuffer(memory, kind, int(np.prod(shape)), offset).reshape(shape)
        for name, (offset, shape, kind) in layout.items()
    }


def _read(link: socket.socket, number: int) -> bytes:
    content = b""
    while len(content) < number:
        part = link.recv(number - len(content))
        if not part:
            raise EOFError
        content += part
    return content


def _read_soon(link: socket.socket, number: int) -> bytes:
    """Read as `_read` does, awake for a while before it sleeps."""
    end = time.perf_counter() + SECONDS_AWAKE
    while time.perf_counter() < end:
        with contextlib.suppress(BlockingIOError):
            part = link.recv(number, socket.MSG_DONTWAIT)
            if not part:
                raise EOFError
            return part + _read(link, number - len(part))
    return _read(link, number)


def _attempt(link: socket.socket, number: int, work: Any) -> Any:
    """Do something, and say whether it worked."""
    try:
        result = work()
    except Exception as error:
        text = f"{type(error).__name__}: {error}".encode()
        link.sendall(_ANSWER.pack(FAILED, number, len(text)) + text)
        return None
    link.sendall(_ANSWER.pack(DONE, number, 0))
    return result


def serve(link: socket.socket) -> None:
    """Run a block in this process, until the other end of `link` says so or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    settings, layout, size, descriptor, first, last = pickle.loads(_read(link, _LENGTH.unpack(_read(link, 4))[0]))
    everything = _arrays(descriptor, size, layout)
    os.close(descriptor)
    frame = everything.pop("frame")[0]
    arrays = {name: array[first:last] for name, array in everything.items()}
    block = _attempt(link, 0, lambda: Block(settings, arrays, first))
    if block is None:
        return
    work = {BEGIN: block.begin, STEP: block.step, WAIT: block.wait}
    try:
        while True:
            command, number, row = _COMMAND.unpack(_read_soon(link, _COMMAND.size))
            if command == QUIT:
                break
            if command == DRAW:
                _attempt(link, number, lambda row=row: block.draw_level(row, frame))
            else:
                _attempt(link, number, work[command])
    except (OSError, EOFError):
        pass
    finally:
        block.close()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
