"""The problems of the Berkeley Function Calling Leaderboard, from its wheel, from the hub, or from a folder."""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path

from polyathlon.envs.data.cache import cache_folder
from polyathlon.envs.data.wheels import download_wheel
from polyathlon.envs.errors import UsageError, require

from .entries import BUILTIN

REQUIREMENT = "bfcl-eval==2026.3.23"
SHA256 = "3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a"
LICENCE = (
    f"From the wheel {REQUIREMENT}: the Berkeley Function Calling Leaderboard, https://github.com/ShishirPatil/gorilla, "
    "Apache License 2.0.\n"
)
_DATA = "bfcl_eval/data/"
_APIS = "bfcl_eval/eval_checker/multi_turn_eval/func_source_code/"
_DONE = "LICENCE.txt"


def bfcl_folder() -> Path:
    """Return the folder in the cache that `fetch_bfcl` fills."""
    return cache_folder() / "data" / REQUIREMENT.replace("==", "-")


def fetch_bfcl() -> Path:
    """Bring the leaderboard's problems into the cache and return their folder; at once if they are there already.

    They come out of a pip wheel of 2 MB, of a fixed version and hash, which is not installed: the problems, the answers,
    and the source of the eight classes that multi-turn problems act on. The folder appears whole or not at all.

    Raises:
        UsageError: the wheel cannot be downloaded or is not the published one.
    """
    target = bfcl_folder()
    if (target / _DONE).is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bfcl-", dir=target.parent) as work:
        print(f"polyathlon: fetching the problems of {REQUIREMENT} (2 MB), once", file=sys.stderr)
        made = unpack(download_wheel(REQUIREMENT, Path(work), SHA256), Path(work) / "made")
        try:
            made.rename(target)
        except OSError:
            if not (target / _DONE).is_file():
                raise
    return target


def unpack(wheel: Path, folder: Path) -> Path:
    """Take problems, answers, function documents and API classes out of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            for prefix, under in ((_DATA, ""), (_APIS, "apis/")):
                inside = member.removeprefix(prefix)
                is_wanted = inside.endswith((".json", ".py")) and "unused" not in inside
                if inside != member and is_wanted:
                    path = folder / under / inside
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(archive.read(member))
    (folder / _DONE).write_text(LICENCE)
    return folder


def locate_problems(source: str | Path) -> Path:
    """Find the folder of a source of problems.

    Args:
        source: "builtin", "bfcl" (fetched at first use), a folder in the format of `entries.read_entries`, or
            "hub:OWNER/NAME", a data set on the HuggingFace hub with such files.

    Raises:
        UsageError: nothing is there, it cannot be fetched, or `source` is no string or path.
    """
    if not isinstance(source, str | Path):
        raise UsageError(f"a source of problems is named by a string or a path, got {source!r}")
    if source == "builtin":
        return BUILTIN
    if source == "bfcl":
        return fetch_bfcl()
    if isinstance(source, str) and source.startswith("hub:"):
        return _from_hub(source.removeprefix("hub:"))
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise UsageError(
            f"there is no folder {str(source)!r}; allowed are 'builtin', 'bfcl', a folder of problems, or 'hub:OWNER/NAME'"
        )
    return folder.resolve()


def _from_hub(name: str) -> Path:
    hub = require("huggingface_hub", "language")
    try:
        return Path(hub.snapshot_download(name, repo_type="dataset", allow_patterns=["*.json", "*/*.json"]))
    except Exception as error:
        raise UsageError(
            f"the data set {name!r} could not be taken from the hub ({type(error).__name__}: {str(error)[:200]}); give a "
            "folder that holds its files instead"
        ) from error
