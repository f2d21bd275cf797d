"""The temporary folder of a game: locked while its process lives, swept away after a kill."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "nle"  # what NLE calls its folders
LOCK = "polyathlon.lock"


def lock_folder(folder: str | Path) -> int:
    """Mark a folder as used by this process.

    The lock goes with the process, whatever ends it; process numbers would not do, since containers that share a
    temporary directory do not share these.

    Returns:
        The descriptor that holds the lock; closing it gives the folder up.
    """
    hidden = Path(folder) / (LOCK + ".new")
    descriptor = os.open(hidden, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.replace(hidden, Path(folder) / LOCK)  # appears locked: a sweep never meets it open
    return descriptor


def is_abandoned(folder: str | Path) -> bool:
    """Tell whether a folder was locked by a process that is gone; one that was never locked is not ours."""
    try:
        descriptor = os.open(Path(folder) / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def sweep(parent: str | Path | None = None) -> list[Path]:
    """Remove the game folders that killed processes left behind.

    Args:
        parent: where to look; None is the temporary directory.

    Returns:
        The folders removed.
    """
    removed = []
    with contextlib.suppress(OSError), os.scandir(parent or tempfile.gettempdir()) as entries:
        for entry in entries:
            if not entry.name.startswith(PREFIX) or not entry.is_dir(follow_symlinks=False):
                continue
            if is_abandoned(entry.path):
                shutil.rmtree(entry.path, ignore_errors=True)
                removed.append(Path(entry.path))
    return removed
