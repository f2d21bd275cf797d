"""A hook of MkDocs: `::: every MODULE` stands for every public module of a package, `::: table agents` for the registered agents, `::: table methods` for the recipes."""

from __future__ import annotations

import re
from pathlib import Path

import polyathlon
from polyathlon.agents.language.recipes import recipe_rows
from polyathlon.agents.language.recipes.table import methods_markdown

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


def table_of_agents() -> str:
    """Return the registered agents as a Markdown table."""
    rows = [
        f"| `{record.entry_point.partition(':')[2]}` | `{record.name}` | {record.family} | {record.summary} |"
        for record in polyathlon.algorithms()
    ]
    return "\n".join(["| class | name | family | |", "|---|---|---|---|", *rows])


def on_page_markdown(markdown: str, **_: object) -> str:
    """Write the modules out; MkDocs calls this for every page."""

    def written(match: re.Match[str]) -> str:
        return "\n\n".join(f"::: {name}" for name in modules_of(match[1]))

    if "::: table methods" in markdown:
        markdown = markdown.replace("::: table methods", methods_markdown(recipe_rows()))
    return LINE.sub(written, markdown.replace("::: table agents", table_of_agents()))
