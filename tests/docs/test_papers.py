"""The index of papers is that of the rows, and its snippets are short."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("papers", ROOT / "scripts" / "papers.py")
assert SPEC is not None and SPEC.loader is not None
papers = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(papers)


def test_the_page_is_that_of_the_rows():
    assert papers.PAGE.read_text() == papers.page(), "run python scripts/papers.py"


def test_snippets_are_short_and_every_row_has_one():
    text = papers.PAGE.read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    rows = [row for row in papers.recipe_rows() if row.source != "test"]
    assert len(blocks) == len(rows) + 1 and all(len(block.splitlines()) <= 12 for block in blocks)
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == [row.name for row in rows]
    for path in re.findall(r"`(tests/[\w/]+\.py)`", text):
        assert (ROOT / path).is_file()
