"""A warm process and its handle: a bare interpreter that forks a fresh process for every program."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .child.wire import NONCE, encode
from .plain import decode, natural
from .running import SLOWEST, Files, Limits, Run, Scheduled

CHILD = Path(__file__).resolve().parent / "child"
_PACKAGE = "sandboxed"
_BOOT = (
    "import sys, types; package = types.ModuleType(sys.argv[1]); package.__path__ = [sys.argv[2]]; "
    "sys.modules[package.__name__] = package; from importlib import import_module; "
    "import_module(package.__name__ + '.zygote').main("
    "tuple(map(int, sys.argv[3].split())), tuple(sys.argv[4].split()), int(sys.argv[5]), int(sys.argv[6]))"
)
# -I would ignore PYTHONHASHSEED; with an environment of our own, -P and -s are the rest of it
_FLAGS = ("-P", "-s", "-S", "-B")
# what is bound when the warm process starts need not be bound in every process; the C library would reserve 64 MiB of
# address space for every thread that allocates memory
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "LC_ALL": "C.UTF-8",
    "LD_BIND_NOW": "1",
    "MALLOC_ARENA_MAX": "1",
}
# bytes for the stack of a thread that a program starts: the usual size at most, half of the memory for all of them
_LARGEST_STACK, _SMALLEST_STACK = 8 << 20, 256 << 10
# the descriptor of the records, which a program is not told
_LOWEST_NUMBER, _NUMBERS = 100, 150
_MAX_JOB = 1 << 26
_START_SECONDS, _GRACE = 60.0, 5.0
# as in child/zygote.py, which is not imported here: reasons for which a process was ended
_EARLY = {2: ("timeout", "out of time"), 3: ("threads", "too many threads")}
_NOT_STARTED = 4
# how it is said that somebody else has ended a program: the kernel, where memory is short, or a person
KILLED = f"ended by signal {int(signal.SIGKILL)}"


class SandboxError(RuntimeError):
    """The sandbox itself does not work; no verdict on a program."""


def bare_interpreter() -> str:
    """Return the path of the interpreter behind a virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def stack_size(memory: int, threads: int) -> int:
    """Return the bytes for the stack of a thread, so that all threads of a program fit into half of its memory."""
    size = min(max(memory // (2 * threads), _SMALLEST_STACK), _LARGEST_STACK)
    return size - size % (1 << 12)


def _file_in_memory(name: str) -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Worker:
    """A warm process, and the run that it serves at the moment.

    Args:
        interpreter: path of the Python interpreter.
        layers: names of the layers of isolation to put on every program.
        memory: bytes of address space for a program.
        stack: bytes for the stack of each thread of a program.

    Attributes:
        report: what the warm process said of its layers: "active", "missing", "python".
        run: the run it serves, or None.

    Raises:
        SandboxError: it does not start.
    """

    def __init__(self, interpreter: str, layers: tuple[str, ...], memory: int, stack: int = _LARGEST_STACK) -> None:
        self.run: Run | None = None
        self._owner = os.getpid()
        self.control, other = socket.socketpair()
        self.records, records = os.pipe()
        os.set_blocking(self.records, False)
        self.job, self.out, self.err = map(_file_in_memory, ("job", "out", "err"))
        for descriptor in (self.out, self.err):
            # whoever writes writes at the end, wherever others were
            fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)
        # above 2, also where this process has closed its own standard input or output
        meant = (other.fileno(), self.job, records, self.out, self.err)
        given = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3) for descriptor in meant]
        arguments = [_PACKAGE, str(CHILD), " ".join(map(str, given)), " ".join(layers), str(memory), str(stack)]
        try:
            self.process = subprocess.Popen(
                [interpreter, *_FLAGS, "-c", _BOOT, *arguments],
                env=_ENVIRONMENT,
                cwd="/",
                pass_fds=given,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            self._close_files()
            raise SandboxError(f"{interpreter} could not be started: {error}") from error
        finally:
            other.close()
            for descriptor in (records, *given):
                os.close(descriptor)
        self.report = self._hear()

    def _hear(self) -> dict[str, Any]:
        """Read what the warm process says of its layers."""
        self.control.settimeout(_START_SECONDS)
        try:
            found: dict[str, Any] = natural(decode(self._receive(int.from_bytes(self._receive(4), "little"))))
        except (EOFError, OSError) as error:
            self.process.kill()
            said = self.process.communicate()[1].decode("utf-8", "replace").strip()
            self._close_files()
            raise SandboxError(f"the warm process did not start: {said[-500:] or error}") from error
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.process.stderr = None
        return found

    def _close_files(self) -> None:
        self.control.close()
        for descriptor in (self.records, self.job, self.out, self.err):
            os.close(descriptor)

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.control.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def begin(self, job: dict[str, Any], limits: Limits, seconds: float) -> Run:
        """Start a process for a job.

        Args:
            job: "kind", "program", "entry", "inputs" (encoded), "input" (bytes or None).
            limits: what the program may use.
            seconds: wall time in all.
        """
        nonce = os.urandom(NONCE)
        number = _LOWEST_NUMBER + nonce[0] % _NUMBERS
        data = encode({**job, "nonce": nonce, "number": number}, max_size=_MAX_JOB)
        os.ftruncate(self.job, 0)
        os.pwrite(self.job, data, 0)
        command = b"R%d %d %f %d\n" % (len(data), int(seconds) + 1, SLOWEST * seconds + _GRACE, limits.threads)
        try:
            self.control.sendall(command)
        except OSError as error:
            raise SandboxError(f"the warm process is gone: {error}") from error
        count = len(job["inputs"]) or 1
        files = Files(self.records, self.out, self.err)
        self.run = Run(files, nonce, count, limits, time.monotonic() + seconds, job["kind"] == "stdio")
        return self.run

    def end(self, why: str) -> None:
        """End the running process; its status is still to come."""
        if self.run is not None and not self.run.is_ended:
            self.run.end(why)
            self.run.is_ended = True
            with contextlib.suppress(OSError):
                self.control.send(b"K\n")

    def ask(self) -> None:
        """Ask how busy the machine is for the running process; `hear` gets the answer."""
        with contextlib.suppress(OSError):
            self.control.send(b"?\n")

    def hear(self) -> tuple[Scheduled | None, bytes | None]:
        """Read what the warm process says.

        Returns:
            What the kernel says of the running process's time, None where that was not said; and how it ended, for
            `status`, or None.

        Raises:
            SandboxError: the warm process has died.
        """
        try:
            said = self.control.recv(256)
        except OSError:
            said = b""
        if not said:
            raise SandboxError("the warm process has died")
        used, ended = None, None
        for line in said.splitlines():
            if line[:1] == b"C":
                ran, waited, left, taken = map(int, line[1:].split())
                used = Scheduled(ran / 1e9, waited / 1e9, left, taken)
            else:
                ended = line
        return used, ended

    def status(self, line: bytes) -> tuple[str | None, str, float, int]:
        """Return how the process ended: status or None, the same in words, processor seconds, largest size in bytes.

        Raises:
            SandboxError: it could not be forked.
        """
        code, number, why, used, size = map(int, line.split())
        if why == _NOT_STARTED:
            raise SandboxError(f"the warm process cannot fork: {os.strerror(code)}")
        seconds = used / 1e6
        if why in _EARLY:
            return (*_EARLY[why], seconds, size)
        if number:
            return "crash", f"ended by signal {number}", seconds, size
        if code:
            return "exit", f"left with exit code {code}", seconds, size
        return None, "", seconds, size

    def close(self) -> None:
        """End the warm process and whatever it runs."""
        if self.control.fileno() < 0:
            return
        self._close_files()
        if os.getpid() != self._owner:
            return
        try:
            self.process.wait(2.0 if self.run is None else 0.2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
