"""Which files a program may see: the standard library, to read, and nothing else (Landlock)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import importlib
import os
import stat
import sys
from collections.abc import Iterator

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_READ_FILE, _READ_DIR, _WRITE_FILE = 1 << 2, 1 << 3, 1 << 1
# folders of the standard library that hold what others installed, or what no program needs
_NOT_LIBRARY = {"site-packages", "dist-packages", "ensurepip", "idlelib", "lib2to3", "test", "turtledemo", "tkinter"}
_TIME_ZONES = "/usr/share/zoneinfo"
# modules that link to libraries outside the standard library's folder
_LINKED = ("hashlib", "zlib", "bz2", "lzma", "sqlite3", "uuid", "ctypes", "decimal", "curses", "readline", "dbm")
_MINIMUM_FOR_SIGNALS = 6


def abi() -> int:
    """Return the version of Landlock that the kernel has; 0: none."""
    if sys.platform != "linux":
        return 0
    try:
        version = ctypes.CDLL(None, use_errno=True).syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    except (OSError, AttributeError):
        return 0
    return max(int(version), 0)


def _rules() -> Iterator[tuple[str, int]]:
    """Yield what may be read. The kernel copies every rule for every process, so there should be few.

    A module that has been compiled is read from the folder of compiled modules; its source stays out of sight.
    """
    library = os.path.dirname(os.__file__)
    compiled = os.path.join(library, "__pycache__")
    tag = f".{sys.implementation.cache_tag}.pyc"
    yield library, _READ_DIR
    for entry in sorted(os.listdir(library)):
        name, extension = os.path.splitext(entry)
        path = os.path.join(library, entry)
        if entry in _NOT_LIBRARY or name.startswith("config-"):
            continue
        if os.path.isdir(path) or (extension == ".py" and not os.path.exists(os.path.join(compiled, name + tag))):
            yield path, _READ_FILE | _READ_DIR
    # extension modules; everything of sysconfig, which knows it too, would stay in memory
    dynamic = next((path for path in sys.path if path.endswith("lib-dynload")), library)
    if not dynamic.startswith(library):
        yield dynamic, _READ_FILE | _READ_DIR
    yield _TIME_ZONES, _READ_FILE | _READ_DIR
    yield "/dev/null", _READ_FILE | _WRITE_FILE
    for path in ("/dev/zero", "/dev/urandom", *_libraries(library)):
        yield path, _READ_FILE


def _libraries(library: str) -> list[str]:
    """Return the shared libraries that modules of the standard library link to, as a throw-away process loads them."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for name in _LINKED:
                with contextlib.suppress(ImportError):
                    importlib.import_module(name)
            with open("/proc/self/maps") as maps:
                found = {line.split()[-1] for line in maps if ".so" in line}
            os.write(writer, "\n".join(path for path in found if not path.startswith(library)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as answers:
        paths = answers.read().split("\n")
    os.waitpid(pid, 0)
    return sorted(path for path in paths if path.startswith("/"))


class Ruleset:
    """The rules, made once; `apply` puts them on the calling process for good.

    Raises:
        OSError: the kernel has no Landlock.
    """

    def __init__(self) -> None:
        self.version = abi()
        if not self.version:
            raise OSError(errno.ENOSYS, "the kernel has no Landlock")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._syscall = self._libc.syscall
        files = 12 + (self.version >= 2) + (self.version >= 3) + (self.version >= 5)
        self._handled = (1 << (files + 1)) - 1
        network = 3 if self.version >= 4 else 0
        scopes = 3 if self.version >= _MINIMUM_FOR_SIGNALS else 0
        attributes = b"".join(value.to_bytes(8, "little") for value in (self._handled, network, scopes))
        size = 8 if self.version < 4 else 16 if self.version < _MINIMUM_FOR_SIGNALS else 24
        self.descriptor = self._call(_CREATE, attributes, ctypes.c_size_t(size), ctypes.c_uint(0))
        # made now, since little should be made where it is used, in a process that was just forked
        arguments = ctypes.c_long(_RESTRICT), ctypes.c_int(self.descriptor), ctypes.c_uint(0)
        self._restrict = functools.partial(self._syscall, *arguments)
        for path, rights in _rules():
            self._allow(path, rights)

    def _call(self, number: int, *arguments: object) -> int:
        result = int(self._syscall(ctypes.c_long(number), *arguments))
        if result < 0:
            raise OSError(ctypes.get_errno(), "Landlock: " + os.strerror(ctypes.get_errno()))
        return result

    def _allow(self, path: str, rights: int) -> None:
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return
        try:
            if not stat.S_ISDIR(os.fstat(opened).st_mode):
                rights &= _READ_FILE | _WRITE_FILE
            rule = (rights & self._handled).to_bytes(8, "little") + opened.to_bytes(4, "little")
            self._call(_ADD_RULE, ctypes.c_int(self.descriptor), ctypes.c_int(1), rule, ctypes.c_uint(0))
        finally:
            os.close(opened)

    def apply(self) -> None:
        """Put the rules on this process; no_new_privs must be set.

        Raises:
            OSError: the kernel refuses them.
        """
        if self._restrict() != 0:
            raise OSError(ctypes.get_errno(), "Landlock: " + os.strerror(ctypes.get_errno()))
