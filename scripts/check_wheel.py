"""Check what the built packages hold: the three rooms under `polyathlon`, the type marker, nothing at the top level."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path


def check_wheel(path: Path) -> None:
    """Raise AssertionError when the wheel lacks a room or would install a generic top-level package."""
    names = zipfile.ZipFile(path).namelist()
    top = {name.split("/")[0] for name in names}
    assert all(name == "polyathlon" or name.endswith(".dist-info") for name in top), (
        f"unexpected top-level names: {top}"
    )
    for needed in ("envs/tensor/make.py", "agents/base.py", "wrappers/action_kinds.py", "cli.py", "py.typed"):
        assert f"polyathlon/{needed}" in names, f"{needed} is missing from {path.name}"


def check_sdist(path: Path) -> None:
    """Raise AssertionError when the source archive lacks a room."""
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    for needed in ("setup.py", "envs/errors.py", "agents/base.py", "wrappers/action_kinds.py"):
        assert needed in names, f"{needed} is missing from {path.name}"


if __name__ == "__main__":
    for argument in map(Path, sys.argv[1:]):
        (check_wheel if argument.suffix == ".whl" else check_sdist)(argument)
        print("ok", argument.name)
