"""The warm process: a bare interpreter that never runs a program itself, but forks a fresh process for each.

It is told what to do on a socket that the forked processes close, and sees neither programs nor inputs: those are in a
file that the forked process reads. So nothing of a job is ever in the memory of another. It imports little and has few
libraries in its memory: all of that is copied for every program.
"""

from __future__ import annotations

import _sitebuiltins
import _thread
import builtins
import ctypes
import fcntl
import importlib
import marshal
import os
import select
import signal
import sys
import time
from typing import Any

from . import layers, runner

BY_ITSELF, KILLED, TOO_LONG, TOO_MANY_THREADS, NOT_STARTED = range(5)
TICK = 0.05
_fork = ctypes.PyDLL(None, use_errno=True).fork
# what programs import most; all else of the standard library is read when it is asked for, so that the process that is
# copied for every program stays small
_WARM = "bisect collections.abc copy functools heapq io itertools math operator random re string textwrap typing"


def main(descriptors: tuple[int, ...], wanted: tuple[str, ...], memory: int, stack: int) -> None:
    """Serve jobs until the other side closes the socket.

    Args:
        descriptors: the socket; file of the job, pipe of the records, files of standard output and standard error.
        wanted: names of the layers to put on every process.
        memory: bytes of address space for a program.
        stack: bytes for the stack of each thread of a program.
    """
    control, *others = _lowest(descriptors)
    files = runner.Files(*others)
    for name in _WARM.split():
        importlib.import_module(name)
    held = layers.Layers(wanted)
    for name, why in layers.probe(held).items():
        held.missing[name] = f"does not hold: {why}"
        held.active.pop(name, None)
    report = marshal.dumps({"active": held.active, "missing": held.missing, "python": sys.version.split()[0]}, 2)
    os.write(control, len(report).to_bytes(4, "little") + report)
    os.environ.clear()
    os.chdir("/")
    os.umask(0o077)
    _thread.stack_size(stack)
    # what Python offers where it is started in the usual way, with the module site
    vars(builtins).update({name: _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)") for name in ("exit", "quit")})
    vars(builtins)["help"] = _sitebuiltins._Helper()
    sys.argv[:] = [""]
    for name in [name for name in sys.modules if name.partition(".")[0] == __package__]:
        del sys.modules[name]
    os.dup2(1, 2)
    held.prepare(memory)
    layers.settle()
    while True:
        commands = os.read(control, 256)
        if not commands:
            return
        for command in commands.split(b"\n"):
            if command[:1] == b"R":
                os.write(control, _run(control, held, files, command))


def _lowest(descriptors: tuple[int, ...]) -> list[int]:
    """Move descriptors to the lowest numbers and close where they were: what is open here has no other numbers."""
    places = range(3, 3 + len(descriptors))
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, places.stop) for descriptor in descriptors]
    for descriptor, place in zip(moved, places):
        os.dup2(descriptor, place)
    for descriptor in {*descriptors, *moved} - set(places):
        os.close(descriptor)
    return list(places)


def _run(control: int, held: layers.Layers, files: runner.Files, command: bytes) -> bytes:
    size, seconds, wall, threads = command[1:].split()
    # not os.fork, whose hooks of modules (random seeds itself anew, ...) cost more than all layers together; there is
    # one thread, and a program that asks for random numbers without a seed gets the same ones each time
    pid = _fork()
    if pid == 0:
        try:
            held.die_with_parent()
            if not held.seccomp:
                os.setsid()
            runner.run(held, files, int(size), int(seconds))
        finally:
            os._exit(73)
    if pid < 0:
        return b"%d 0 %d 0 0\n" % (ctypes.get_errno(), NOT_STARTED)
    why, ended = _supervise(control, pid, time.monotonic() + float(wall), int(threads))
    _, status, usage = ended or os.wait4(pid, 0)
    code, number = (os.WEXITSTATUS(status), 0) if os.WIFEXITED(status) else (0, os.WTERMSIG(status))
    size_of_process = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    used = 1e6 * (usage.ru_utime + usage.ru_stime)
    return b"%d %d %d %d %d\n" % (code, number, why, used, size_of_process)


def _supervise(control: int, pid: int, deadline: float, threads: int) -> tuple[int, Any]:
    """Wait until a process has ended, by itself or by force.

    Returns:
        Why it was ended, and what `wait4` said where it has been asked already, else None.
    """
    poll = select.poll()
    poll.register(control, select.POLLIN)
    ended = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
    if ended >= 0:
        poll.register(ended, select.POLLIN)
    why, tick = BY_ITSELF, TICK if ended >= 0 else 0.002
    try:
        while True:
            ready = dict(poll.poll(1000 * tick))
            if ended in ready:
                return why, None
            if ended < 0 and (found := os.wait4(pid, os.WNOHANG))[0]:
                return why, found
            if control in ready:
                command = os.read(control, 256)
                if command[:1] == b"?":
                    os.write(control, b"C%d %d %d %d\n" % (*_scheduled(pid), *_switches(pid)))
                    continue
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


def _scheduled(pid: int) -> tuple[int, int]:
    """Return for how long a process has run, and has waited for a processor, in nanoseconds."""
    try:
        with open(f"/proc/{pid}/schedstat") as schedstat:
            ran, waited = schedstat.read().split()[:2]
        return int(ran), int(waited)
    except (OSError, ValueError):
        return 1, 0


def _switches(pid: int) -> tuple[int, int]:
    """Return how often a process has left its processor by itself (to sleep), and how often that was taken from it."""
    found = {"voluntary_ctxt_switches": 0, "nonvoluntary_ctxt_switches": 0}
    try:
        with open(f"/proc/{pid}/status") as status:
            for line in status:
                name, _, value = line.partition(":")
                if name in found:
                    found[name] = int(value)
    except (OSError, ValueError):
        pass
    return found["voluntary_ctxt_switches"], found["nonvoluntary_ctxt_switches"]
