"""The pages of MiniWoB++: where they are and how long they take."""

from __future__ import annotations

import functools
import importlib.util
import sys
import tempfile
import zipfile
from pathlib import Path

from polyathlon.envs.data.cache import cache_folder
from polyathlon.envs.data.wheels import download_wheel
from polyathlon.envs.errors import UsageError, unknown_name

MINIWOB = "miniwob==1.1.0"
_HASH = "297006e84219d56ad037e843527ed773a4a82509dc43b6031ec4a3ad3e3e61d9"
# core/jscolor.min.js is licensed under the GPLv3 and html/flight holds copies of two airlines' sites: fetched by whoever
# wants the pages, never part of this package; flight is never used
_FOLDERS = ("core", "common", "miniwob")
_INSIDE = "miniwob/html/"
# pages that two warm-up episodes do not make independent of what was played before
RELOADED = frozenset({"chase-circle", "click-pie", "click-pie-nodelay", "moving-items", "simon-says", "stock-market"})


def fetch_miniwob() -> Path:
    """Bring the pages of MiniWoB++ into the cache and return their folder; at once if they are there already.

    They come out of the pip wheel miniwob (1.9 MB), of a fixed version and hash, which is not installed.

    Raises:
        UsageError: the wheel cannot be downloaded or is not the published one.
    """
    target = _cached()
    if (target / "core" / "core.js").is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".miniwob-", dir=target.parent) as work:
        print(f"polyathlon: fetching the pages of {MINIWOB} (1.9 MB), once", file=sys.stderr)
        made = Path(work) / "pages"
        with zipfile.ZipFile(download_wheel(MINIWOB, Path(work), _HASH)) as wheel:
            for name in wheel.namelist():
                if name.startswith(tuple(f"{_INSIDE}{folder}/" for folder in _FOLDERS)) and not name.endswith("/"):
                    place = made / name.removeprefix(_INSIDE)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(wheel.read(name))
        if not (target / "core" / "core.js").is_file():  # another process may have been quicker
            made.replace(target)
    return target


def _cached() -> Path:
    return cache_folder() / "data" / MINIWOB.replace("==", "-")


def pages_folder() -> Path:
    """Return the folder of the pages: the fetched ones, else those of an installed miniwob, which is not imported.

    Raises:
        UsageError: there are none.
    """
    target = _cached()
    if (target / "core" / "core.js").is_file():
        return target
    spec = importlib.util.find_spec("miniwob")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (Path(place) / "html" / "core" / "core.js").is_file():
            return Path(place) / "html"
    raise UsageError("the pages of MiniWoB++ are not here; bring them into the cache with: polyathlon fetch miniwob")


@functools.lru_cache(maxsize=8)
def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in (folder / "miniwob").glob("*.html")))


def page_names() -> tuple[str, ...]:
    """Return the names of all pages."""
    return _names(pages_folder())


def page_url(name: str) -> str:
    """Return the address of a page.

    Raises:
        UsageError: there is no such page, or the pages were not fetched.
    """
    folder = pages_folder()
    if name not in _names(folder):
        raise unknown_name("task", str(name), _names(folder))
    return (folder / "miniwob" / f"{name}.html").as_uri()
