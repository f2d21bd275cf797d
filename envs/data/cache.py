"""Where fetched models and data are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder of fetched models and data: `POLYATHLON_CACHE`, or `.cache/polyathlon` in the home folder."""
    given = os.environ.get("POLYATHLON_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "polyathlon"
