"""The warm process: a bare interpreter that never runs a program itself, but forks a fresh process for each.

It is told what to do on a socket that the forked processes do not have, and sees neither programs nor inputs: those
go through a socket of each job's own, which is handed on. So nothing of a job is ever in the memory of another.
"""

from __future__ import annotations

import ctypes
import importlib
import marshal
import os
import select
import signal
import socket
import struct
import sys
import time
from typing import Any

from . import layers, runner

# run or kill; processor seconds, seconds of wall time, threads
COMMAND = struct.Struct("<cIdI")
# exit code, signal, why it was ended, seconds of user and system time, largest size in bytes
STATUS = struct.Struct("<iiBddQ")
_DESCRIPTORS = struct.Struct("3i")
BY_ITSELF, KILLED, TOO_LONG, TOO_MANY_THREADS, NOT_STARTED = range(5)
TICK = 0.05
_fork = ctypes.PyDLL(None, use_errno=True).fork
# what programs import most; all else of the standard library is read when it is asked for, so that the process that is
# copied for every program stays small
_WARM = [
    "array",
    "bisect",
    "cmath",
    "collections.abc",
    "copy",
    "decimal",
    "fractions",
    "functools",
    "heapq",
    "io",
    "itertools",
    "math",
    "numbers",
    "operator",
    "queue",
    "random",
    "re",
    "statistics",
    "string",
    "textwrap",
    "threading",
    "time",
    "typing",
]


def main(descriptor: int, wanted: tuple[str, ...], memory: int) -> None:
    """Serve jobs until the other side closes the socket.

    Args:
        descriptor: the socket.
        wanted: names of the layers to put on every process.
        memory: bytes of address space for a program.
    """
    control = socket.socket(fileno=descriptor)
    for name in _WARM:
        importlib.import_module(name)
    held = layers.Layers(wanted)
    for name, why in layers.probe(held).items():
        held.missing[name] = f"does not hold: {why}"
        held.active.pop(name, None)
    report = marshal.dumps({"active": held.active, "missing": held.missing, "python": sys.version.split()[0]}, 2)
    control.sendall(struct.pack("<I", len(report)) + report)
    os.environ.clear()
    os.chdir("/")
    os.umask(0o077)
    sys.argv[:] = [""]
    for name in [name for name in sys.modules if name.partition(".")[0] == __package__]:
        del sys.modules[name]
    os.dup2(1, 2)
    held.prepare(memory)
    layers.settle()
    room = socket.CMSG_SPACE(_DESCRIPTORS.size)
    while True:
        message, ancillary, _, _ = control.recvmsg(COMMAND.size, room)
        if not message:
            return
        while len(message) < COMMAND.size:
            message += control.recv(COMMAND.size - len(message))
        if ancillary:
            control.sendall(_run(control, held, _DESCRIPTORS.unpack(ancillary[0][2])[:3], message))


def _run(control: socket.socket, held: layers.Layers, descriptors: tuple[int, int, int], message: bytes) -> bytes:
    _, seconds, wall, threads = COMMAND.unpack(message)
    channel, out, err = descriptors
    # not os.fork, whose hooks of modules (random seeds itself anew, ...) cost more than all layers together; there is
    # one thread, and a program that asks for random numbers without a seed gets the same ones each time
    pid = _fork()
    if pid == 0:
        try:
            held.die_with_parent()
            if not held.seccomp:
                os.setsid()
            runner.run(held, channel, out, err, seconds)
        finally:
            os._exit(73)
    for descriptor in descriptors:
        os.close(descriptor)
    if pid < 0:
        return STATUS.pack(ctypes.get_errno(), 0, NOT_STARTED, 0.0, 0.0, 0)
    why = _supervise(control, pid, time.monotonic() + wall, threads)
    _, status, usage = os.wait4(pid, 0)
    code, number = (os.WEXITSTATUS(status), 0) if os.WIFEXITED(status) else (0, os.WTERMSIG(status))
    size = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return STATUS.pack(code, number, why, usage.ru_utime, usage.ru_stime, size)


def _supervise(control: socket.socket, pid: int, deadline: float, threads: int) -> int:
    """Wait until a process has ended, by itself or by force; it is left to be reaped."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    ended = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
    if ended >= 0:
        poll.register(ended, select.POLLIN)
    why, tick = BY_ITSELF, TICK if ended >= 0 else 0.002
    try:
        while True:
            ready = dict(poll.poll(1000 * tick))
            if ended in ready or (ended < 0 and _has_ended(pid)):
                return why
            if control.fileno() in ready:
                command = control.recv(COMMAND.size)
                why = why or KILLED
                _end(pid)
                if not command:
                    os.waitpid(pid, 0)
                    os._exit(0)
            elif time.monotonic() > deadline:
                why = why or TOO_LONG
                _end(pid)
            elif _threads(pid) > threads:
                why = why or TOO_MANY_THREADS
                _end(pid)
    finally:
        if ended >= 0:
            os.close(ended)


def _has_ended(pid: int) -> bool:
    found: Any = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return found is not None


def _end(pid: int) -> None:
    for end in (lambda: os.killpg(pid, signal.SIGKILL), lambda: os.kill(pid, signal.SIGKILL)):
        try:
            end()
        except OSError:
            continue


def _threads(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return int(stat.read().rpartition(")")[2].split()[17])
    except (OSError, ValueError, IndexError):
        return 1
