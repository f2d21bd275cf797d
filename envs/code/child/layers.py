"""The layers of isolation: made once in the warm process, put on by each process that runs a program."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import gc
import os
import resource
import signal
from collections.abc import Callable
from typing import Any

from . import landlock, seccomp

NAMES = ("rlimits", "landlock", "seccomp", "namespaces")
OPEN_FILES = 256
# bytes that a program can print; no other file can be written
FLOOD = 16 << 20
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_NEW_USER, _NEW_IPC, _NEW_NET, _NEW_UTS = 0x10000000, 0x08000000, 0x40000000, 0x04000000
_setrlimit, _CPU, _FILE_SIZE, _MOST = resource.setrlimit, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, (FLOOD, FLOOD)
_CAPSET, _CAPABILITY_VERSION = 126, 0x20080522


class Layers:
    """What this machine can do to hold a program, of the layers asked for.

    Args:
        wanted: names of layers.

    Attributes:
        active: layer -> what is in force, in words.
        missing: layer -> why it is not.
    """

    def __init__(self, wanted: tuple[str, ...]) -> None:
        self.active: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self._libc = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
        self._filter: seccomp.Filter | None = None
        self._rules: landlock.Ruleset | None = None
        prctl = getattr(self._libc, "prctl", None)
        self._end_with_parent = prctl and functools.partial(
            prctl, _PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0
        )
        makers: dict[str, Callable[[], str]] = {
            "rlimits": lambda: "address space, processor time, file size, open files, no core",
            "landlock": self._make_landlock,
            "seccomp": self._make_seccomp,
            "namespaces": self._enter_namespaces,
        }
        for name in NAMES:
            if name not in wanted:
                self.missing[name] = "switched off"
                continue
            try:
                self.active[name] = makers[name]()
            except OSError as error:
                self.missing[name] = error.strerror or str(error)
        self._limits = "rlimits" in self.active

    def _make_landlock(self) -> str:
        self._rules = landlock.Ruleset()
        extra = ["files"] + ["TCP"] * (self._rules.version >= 4) + ["signals"] * (self._rules.version >= 6)
        return f"version {self._rules.version}: {', '.join(extra)}"

    def _make_seccomp(self) -> str:
        self._filter = seccomp.Filter()
        return "list of allowed system calls"

    def _enter_namespaces(self) -> str:
        if not hasattr(self._libc, "unshare"):
            raise OSError(errno.ENOSYS, "this system has no namespaces")
        flags = _NEW_IPC | _NEW_NET | _NEW_UTS
        assert self._libc is not None
        if self._libc.unshare(_NEW_USER | flags) != 0 and self._libc.unshare(flags) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"user namespaces: {os.strerror(code)}")
        return "network, ipc, uts"

    @property
    def seccomp(self) -> bool:
        """Return whether programs cannot make processes."""
        return self._filter is not None

    def prepare(self, memory: int) -> None:
        """Put on the calling process what its children shall inherit and it can live with itself.

        Args:
            memory: bytes of address space beyond what it has now.

        Raises:
            OSError: a layer that should hold does not.
        """
        _first_to_go()
        if "rlimits" in self.active:
            room = _address_space() + memory
            for kind, value in (
                (resource.RLIMIT_AS, room),
                (resource.RLIMIT_NOFILE, OPEN_FILES),
                (resource.RLIMIT_CORE, 0),
            ):
                try:
                    resource.setrlimit(kind, (value, value))
                except ValueError:
                    # macOS has no working limit of address space
                    if kind != resource.RLIMIT_AS:
                        raise
        if self._rules or self._filter:
            self._drop_capabilities()
            self._prctl(_PR_SET_NO_NEW_PRIVS, 1)

    def hold(self, seconds: int) -> None:
        """Put the rest on the calling process, for good.

        Args:
            seconds: processor time after which the kernel ends the process.

        Raises:
            OSError: a layer that should hold does not.
        """
        if self._limits:
            _setrlimit(_CPU, (seconds, seconds))
            _setrlimit(_FILE_SIZE, _MOST)
        if self._rules:
            self._rules.apply()
        if self._filter:
            self._filter.apply()

    def die_with_parent(self) -> None:
        """Let the kernel end the calling process when the warm process ends."""
        if self._end_with_parent is not None:
            self._end_with_parent()

    def _prctl(self, option: int, value: int) -> None:
        assert self._libc is not None
        if self._libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {option}: {os.strerror(ctypes.get_errno())}")

    def _drop_capabilities(self) -> None:
        header = _CAPABILITY_VERSION.to_bytes(4, "little") + bytes(4)
        assert self._libc is not None
        if self._libc.syscall(ctypes.c_long(_CAPSET), header, bytes(24)) != 0:
            raise OSError(ctypes.get_errno(), "capset: " + os.strerror(ctypes.get_errno()))


def _first_to_go() -> None:
    """Where memory runs out on the machine, the kernel shall end these processes, not the one that trains."""
    with contextlib.suppress(OSError):
        adjustment = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        try:
            os.write(adjustment, b"1000")
        finally:
            os.close(adjustment)


def _address_space() -> int:
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[0]) * resource.getpagesize()
    except (OSError, ValueError):
        return 0


def _refused(attempt: Callable[[], Any], *codes: int) -> bool:
    try:
        attempt()
    except OSError as error:
        return error.errno in codes
    return False


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)
    os.wait()


def probe(layers: Layers) -> dict[str, str]:
    """Try in a throw-away process what each active layer should refuse.

    Returns:
        Layer -> what was not refused; empty when all hold.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        failures = "landlock:the probe did not finish"
        try:
            os.close(reader)
            failures = _probe_here(layers)
        except BaseException as error:
            failures = f"rlimits:{error}"
        finally:
            os.write(writer, failures.encode()[:4000])
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answers:
        text = answers.read().decode()
    os.waitpid(pid, 0)
    return dict(line.split(":", 1) for line in text.splitlines() if line)


def _probe_here(layers: Layers) -> str:
    import socket

    parent = os.getppid()
    layers.prepare(1 << 28)
    layers.hold(5)
    found = []
    if "rlimits" in layers.active:
        try:
            bytearray(1 << 30)
            found.append("rlimits:a gibibyte could be allocated")
        except MemoryError:
            pass
    if "landlock" in layers.active:
        for path in ("/etc/passwd", "/proc/self/status", f"/proc/{parent}/cmdline", "/"):
            if not _refused(functools.partial(os.open, path, os.O_RDONLY), errno.EACCES, errno.ENOENT):
                found.append(f"landlock:{path} could be opened")
    if "seccomp" in layers.active:
        attempts: dict[str, Callable[[], Any]] = {
            "a socket could be made": socket.socket,
            "a process could be made": _fork,
            "a signal could be sent": lambda: os.kill(parent, 0),
            "a program could be executed": lambda: os.execv("/bin/true", ["true"]),
        }
        found += [f"seccomp:{what}" for what, try_it in attempts.items() if not _refused(try_it, errno.EPERM)]
    return "\n".join(found)


def settle() -> None:
    """Take the objects that exist now out of garbage collection: forked processes need not copy their pages."""
    gc.collect()
    gc.freeze()
