"""A hook of MkDocs: the line `::: every MODULE` of a page stands for every public module of that package."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LINE = re.compile(r"^::: every polyathlon\.([\w.]+)$", re.MULTILINE)


def modules_of(package: str) -> list[str]:
    """Return the public modules of a package inside `polyathlon`, by name: those of its folder, then of each sub-package."""
    folder = REPOSITORY / package.replace(".", "/")
    names = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    found = [f"polyathlon.{package}.{name}" for name in names]
    for inner in sorted(path.parent.name for path in folder.glob("*/__init__.py")):
        found += modules_of(f"{package}.{inner}")
    return found


def on_page_markdown(markdown: str, **_: object) -> str:
    """Write the modules out; MkDocs calls this for every page."""

    def written(match: re.Match[str]) -> str:
        return "\n\n".join(f"::: {name}" for name in modules_of(match[1]))

    return LINE.sub(written, markdown)
