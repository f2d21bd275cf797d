"""How much memory a replay buffer takes, computed before it is taken."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch

from polyathlon.envs.errors import UsageError

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def device_memory(device: torch.device) -> int | None:
    """Return how many bytes a device has in all, None where nothing says so.

    The processor's are those of the machine, or fewer where the process is bounded (`ulimit -v`, a container).
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type != "cpu":
        return None
    found = [_physical(), *map(_read_limit, CGROUP_LIMITS), _address_space()]
    return min((size for size in found if size is not None), default=None)


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows has none of it
        return None


def _read_limit(path: str) -> int | None:
    try:
        text = Path(path).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _address_space() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    bound = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if bound == resource.RLIM_INFINITY else bound


def replay_memory(capacity: int, row_bytes: int, device: torch.device, *, on_disk: bool = False) -> str:
    """Say how much memory a replay buffer takes.

    Args:
        capacity: number of transitions.
        row_bytes: bytes of a transition.
        device: where they lie.
        on_disk: they lie in a temporary file.

    Returns:
        "replay buffer: 1,000,000 transitions of 42,348 bytes, 39.4 GiB on cpu".

    Raises:
        UsageError: it is more than there is; the message has the largest `buffer_size` that fits.
    """
    wanted, place = capacity * row_bytes, f"the disk ({tempfile.gettempdir()})" if on_disk else str(device)
    there = shutil.disk_usage(tempfile.gettempdir()).free if on_disk else device_memory(device)
    words = f"{capacity:,} transitions of {row_bytes:,} bytes, {_gibibytes(wanted)}"
    if there is not None and wanted > there:
        raise UsageError(
            f"the replay buffer would take more memory than there is: {words}, and {place} has {_gibibytes(there)}; "
            f"take a smaller one: buffer_size={there // row_bytes} at most"
        )
    return f"replay buffer: {words} on {place}"


def _gibibytes(number: int) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"
