"""One process a run folder."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from polyathlon.envs.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows: without locks
    fcntl = None  # type: ignore[assignment]


class FolderLock:
    """A lock on a folder that ends with its process, however that ends; processes forked from it do not hold it.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock; an object that has it keeps it.

        Raises:
            UsageError: another process has it, or another object of this one.
        """
        if fcntl is None or self._descriptor is not None:
            return
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise UsageError(
                f"a run is going on in {self.folder}: wait for its end, or choose another --out"
            ) from error
        except OSError as error:  # some network file systems have no locks
            os.close(descriptor)
            warnings.warn(
                f"{self.folder} cannot be locked ({error.strerror}): see that one run alone writes there", stacklevel=2
            )
            return
        self._descriptor = descriptor
        _HELD.add(self)

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            _HELD.discard(self)
            os.close(self._descriptor)  # in a forked process this leaves the parent's lock, LOCK_UN would not
            self._descriptor = None


_HELD: set[FolderLock] = set()


def _release_all() -> None:
    for lock in list(_HELD):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_all)
