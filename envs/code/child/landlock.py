"""Which files a program may see: the standard library, to read, and nothing else (Landlock)."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sysconfig
from collections.abc import Iterator

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_READ_FILE, _READ_DIR, _WRITE_FILE = 1 << 2, 1 << 3, 1 << 1
# folders of the standard library that hold what others installed, or what no program needs
_NOT_LIBRARY = {"site-packages", "dist-packages", "ensurepip", "idlelib", "lib2to3", "test", "turtledemo", "tkinter"}
_TIME_ZONES = "/usr/share/zoneinfo"
_MINIMUM_FOR_SIGNALS = 6


def abi() -> int:
    """Return the version of Landlock that the kernel has; 0: none."""
    try:
        version = ctypes.CDLL(None, use_errno=True).syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    except (OSError, AttributeError):
        return 0
    return max(int(version), 0)


def _rules() -> Iterator[tuple[str, int]]:
    library = sysconfig.get_path("stdlib")
    yield library, _READ_DIR
    for entry in sorted(os.listdir(library)):
        if entry not in _NOT_LIBRARY:
            yield os.path.join(library, entry), _READ_FILE | _READ_DIR
    yield _TIME_ZONES, _READ_FILE | _READ_DIR
    yield "/dev/null", _READ_FILE | _WRITE_FILE
    for device in ("/dev/zero", "/dev/urandom"):
        yield device, _READ_FILE


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
        attributes = struct.pack("<QQQ", self._handled, network, scopes)
        size = 8 if self.version < 4 else 16 if self.version < _MINIMUM_FOR_SIGNALS else 24
        self.descriptor = self._call(_CREATE, attributes, ctypes.c_size_t(size), ctypes.c_uint(0))
        os.set_inheritable(self.descriptor, False)
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
            rule = struct.pack("<Qi", rights & self._handled, opened)
            self._call(_ADD_RULE, ctypes.c_int(self.descriptor), ctypes.c_int(1), rule, ctypes.c_uint(0))
        finally:
            os.close(opened)

    def apply(self) -> None:
        """Put the rules on this process; no_new_privs must be set.

        Raises:
            OSError: the kernel refuses them.
        """
        self._call(_RESTRICT, ctypes.c_int(self.descriptor), ctypes.c_uint(0))
        os.close(self.descriptor)
