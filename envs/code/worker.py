"""A warm process and its handle: a bare interpreter that forks a fresh process for every program."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .child.wire import encode
from .plain import decode, natural
from .running import Limits, Run

CHILD = Path(__file__).resolve().parent / "child"
_PACKAGE = "sandboxed"
# the same as in child/zygote.py, which cannot be imported where there is no fork
COMMAND = struct.Struct("<cIdI")
STATUS = struct.Struct("<iiBddQ")
_BOOT = (
    "import sys, types; package = types.ModuleType(sys.argv[1]); package.__path__ = [sys.argv[2]]; "
    "sys.modules[package.__name__] = package; from importlib import import_module; "
    "import_module(package.__name__ + '.zygote').main(int(sys.argv[3]), tuple(sys.argv[4].split()), int(sys.argv[5]))"
)
# -I would ignore PYTHONHASHSEED; with an environment of our own, -P and -s are the rest of it
_FLAGS = ("-P", "-s", "-S", "-B")
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8"}
# the descriptor of the records, which a program is not told
_LOWEST_NUMBER, _NUMBERS = 100, 150
_MAX_JOB = 1 << 26
_START_SECONDS, _GRACE = 60.0, 5.0
_EARLY = {1: None, 2: "timeout", 3: "threads"}


class SandboxError(RuntimeError):
    """The sandbox itself does not work; no verdict on a program."""


def bare_interpreter() -> str:
    """Return the path of the interpreter behind a virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def _pipe() -> tuple[int, int]:
    """Make a pipe that no other program inherits, and whose reading end does not block."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    return reader, writer


class Worker:
    """A warm process, and the run that it serves at the moment.

    Args:
        interpreter: path of the Python interpreter.
        layers: names of the layers of isolation to put on every program.
        memory: bytes of address space for a program.

    Attributes:
        report: what the warm process said of its layers: "active", "missing", "python".
        run: the run it serves, or None.

    Raises:
        SandboxError: it does not start.
    """

    def __init__(self, interpreter: str, layers: tuple[str, ...], memory: int) -> None:
        self.run: Run | None = None
        self._owner = os.getpid()
        self.control, other = socket.socketpair()
        arguments = [_PACKAGE, str(CHILD), str(other.fileno()), " ".join(layers), str(memory)]
        command = [interpreter, *_FLAGS, "-c", _BOOT, *arguments]
        try:
            with other:
                self.process = subprocess.Popen(
                    command,
                    env=_ENVIRONMENT,
                    cwd="/",
                    pass_fds=[other.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
            self.control.settimeout(_START_SECONDS)
            (size,) = struct.unpack("<I", self._receive(4))
            self.report: dict[str, Any] = natural(decode(self._receive(size)))
        except OSError as error:
            raise SandboxError(f"{interpreter} could not be started: {error}") from error
        except (EOFError, struct.error) as error:
            said = self.process.communicate()[1].decode("utf-8", "replace").strip()
            raise SandboxError(f"the warm process of {interpreter} did not start: {said[-500:]}") from error
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.process.stderr = None

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
        nonce = os.urandom(16)
        channel, theirs = socket.socketpair()
        out, their_out = _pipe()
        err, their_err = _pipe()
        try:
            command = COMMAND.pack(b"R", int(seconds) + 1, seconds + _GRACE / 2, limits.threads)
            socket.send_fds(self.control, [command], [theirs.fileno(), their_out, their_err])
        except OSError as error:
            channel.close()
            os.close(out)
            os.close(err)
            raise SandboxError(f"the warm process is gone: {error}") from error
        finally:
            theirs.close()
            os.close(their_out)
            os.close(their_err)
        channel.setblocking(False)
        number = _LOWEST_NUMBER + nonce[0] % _NUMBERS
        data = encode({**job, "nonce": nonce, "number": number}, max_size=_MAX_JOB)
        count = len(job["inputs"]) or 1
        self.run = Run(
            channel,
            out,
            err,
            memoryview(struct.pack("<I", len(data)) + data),
            nonce,
            count,
            limits,
            time.monotonic() + seconds,
            job["kind"] == "stdio",
        )
        return self.run

    def end(self, why: str) -> None:
        """End the running process; its status is still to come."""
        if self.run is not None and not self.run.is_ended:
            self.run.end(why)
            self.run.is_ended = True
            with contextlib.suppress(OSError):
                self.control.send(COMMAND.pack(b"K", 0, 0.0, 0))

    def status(self) -> tuple[str | None, str, float, int]:
        """Read how the process ended: status or None, the same in words, processor seconds, largest size in bytes.

        Raises:
            SandboxError: the warm process has died, or it could not fork.
        """
        try:
            code, number, why, user, system, size = STATUS.unpack(self._receive(STATUS.size))
        except (EOFError, OSError) as error:
            raise SandboxError("the warm process has died") from error
        if why == 4:
            raise SandboxError(f"the warm process cannot fork: {os.strerror(code)}")
        if why in (2, 3):
            words = {2: "out of time", 3: "too many threads"}[why]
            return _EARLY[why], words, user + system, size
        if number:
            return "crash", f"ended by signal {number}", user + system, size
        if code:
            return "exit", f"left with exit code {code}", user + system, size
        return None, "", user + system, size

    def close(self) -> None:
        """End the warm process and whatever it runs."""
        if self.control.fileno() < 0:
            return
        self.control.close()
        if os.getpid() != self._owner:
            return
        try:
            self.process.wait(2.0 if self.run is None else 0.2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
