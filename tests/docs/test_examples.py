"""Every Python example of the documentation runs, page by page, in a fresh process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Fresh

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_EXAMPLES = [page for page in PAGES if BLOCK.search(page.read_text())]


@pytest.fixture(scope="module")
def fresh() -> Iterator[Fresh]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "Agg")
        processes = Fresh()
        yield processes
        processes.close()


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_of_a_page_run_from_top_to_bottom(page, tmp_path, fresh):
    script = tmp_path / "page.py"
    script.write_text("\n\n".join(BLOCK.findall(page.read_text())))
    code, said = fresh.run(script)
    assert code == 0, f"{page}:\n{said[-6000:]}"


def test_a_page_that_fails_or_imports_nothing_of_ours_is_noticed(tmp_path, fresh):
    """The processes are forked from one with the heavy libraries alone: ids of environments are registered by an import."""
    for text, told in (
        ("import sys; assert 'polyathlon' not in sys.modules; print('fresh')", "fresh"),
        ("import gymnasium as gym; gym.make('polyathlon/TSP-v0')", "NamespaceNotFound"),
        ("import sys; sys.exit(3)", ""),
    ):
        script = tmp_path / "page.py"
        script.write_text(text)
        code, said = fresh.run(script)
        assert (code == 0) == (told == "fresh") and told in said, said


def test_some_pages_have_examples():
    assert len(WITH_EXAMPLES) >= 6
