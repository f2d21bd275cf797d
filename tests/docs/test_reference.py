"""The reference names every public module of the three rooms."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def hook():
    spec = importlib.util.spec_from_file_location("docs_hook", REPOSITORY / "scripts" / "_docs_hook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_line_stands_for_every_module():
    written = hook().on_page_markdown("# Parts\n\n::: every polyathlon.agents.parts\n\nend")
    named = re.findall(r"^::: (\S+)$", written, re.MULTILINE)
    assert "polyathlon.agents.parts.advantages" in named and named == sorted(set(named))
    assert written.startswith("# Parts\n\n::: polyathlon.agents.parts.") and written.endswith("\n\nend")
    assert hook().on_page_markdown("::: polyathlon.envs.errors") == "::: polyathlon.envs.errors"


def test_the_reference_is_complete():
    pages = [hook().on_page_markdown(page.read_text()) for page in (REPOSITORY / "docs" / "reference").glob("*.md")]
    named = re.findall(r"^::: (\S+)$", "\n".join(pages), re.MULTILINE)
    assert len(named) == len(set(named))
    for room in ("envs", "wrappers", "agents"):
        for path in (REPOSITORY / room).rglob("*.py"):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            if not any(part.startswith("_") for part in parts):
                assert ".".join(("polyathlon", *parts)) in named, f"docs/reference misses {path}"
