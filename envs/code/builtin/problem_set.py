"""All problems of our own by name."""

from __future__ import annotations

import functools

from polyathlon.envs.code.problems import Problem


@functools.cache
def fixed_problems() -> dict[str, Problem]:
    """Return the fixed problems by name, by level."""
    from . import level1, level2, level3, level4, programs

    books = [level1.BOOK, level2.BOOK, level3.BOOK, level4.BOOK]
    found = [problem for book in books for problem in book.problems] + programs.PROBLEMS
    return {problem.name: problem for problem in sorted(found, key=lambda problem: problem.level)}
