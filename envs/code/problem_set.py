"""Where problems come from, and which of them are asked."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from polyathlon.envs.errors import UsageError, check_choice, check_listed, unknown_name
from polyathlon.envs.language import TaskId

from . import records
from .builtin.families import FAMILIES, make
from .builtin.problem_set import fixed_problems
from .problems import Problem

LAST_NUMBER = (1 << 31) - 1
CHECKS = ("published", "equal", "exact")


class ProblemSet:
    """The problems of a task.

    Args:
        source: "builtin", "humaneval" or the path of a file.
        levels: only these levels; None: all.
        names: only these problems or families; None: all.
        check: how values are compared with right ones (`CHECKS`).

    Raises:
        UsageError: a name is unknown, nothing is left, or the source cannot be read.
    """

    def __init__(
        self,
        source: str | Path = "builtin",
        levels: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
        check: str = "published",
    ) -> None:
        check_listed(levels=levels, names=names)
        if not isinstance(source, str | Path):
            raise UsageError(f'problems are "builtin", "humaneval" or a file of JSON lines, got {source!r}')
        self.families: dict[str, int] = {}
        if source == "builtin":
            self.problems = dict(fixed_problems())
            self.families = {name: level for name, (level, _) in FAMILIES.items()}
        else:
            path = records.fetch_humaneval() if source == "humaneval" else Path(source).expanduser()
            self.problems = {problem.name: problem for problem in records.read(path)}
        check_choice("check", check, CHECKS)
        self.check = check
        self.problems = {name: checked(problem, check) for name, problem in self.problems.items()}
        every = {name: problem.level for name, problem in self.problems.items()} | self.families
        for name in names or ():
            if name not in every:
                raise unknown_name("problem", str(name), every)
        for level in levels or ():
            if level not in every.values():
                raise unknown_name("level", str(level), {str(other) for other in every.values()})
        self.chosen = [
            name
            for name, level in every.items()
            if (names is None or name in names) and (levels is None or level in levels)
        ]
        if not self.chosen:
            raise UsageError(f"no problems are left with levels={levels!r} and names={names!r}")
        self._fixed = [name for name in self.chosen if name not in self.families]
        self._made = [name for name in self.chosen if name in self.families]

    def draw(self, rng: np.random.Generator) -> str:
        """Draw a problem: half of the time a fixed one, half of the time one of a family, where there are both."""
        kinds = [kind for kind in (self._fixed, self._made) if kind]
        names = kinds[int(rng.integers(len(kinds)))]
        name = names[int(rng.integers(len(names)))]
        return f"{name}/{int(rng.integers(LAST_NUMBER))}" if name in self.families else name

    def problem(self, name: TaskId) -> Problem:
        """Return a problem by its name; "family/number" for one of a family.

        Raises:
            UsageError: there is none.
        """
        if not isinstance(name, str):
            raise UsageError(f"a problem is named by a text such as {self.chosen[0]!r}, got {name!r}")
        if name in self.problems:
            return self.problems[name]
        family, _, number = name.partition("/")
        if family in self.families and number.isascii() and number.isdigit() and int(number) <= LAST_NUMBER:
            return _of_family(family, int(number), self.check)
        if family in self.families:
            raise UsageError(f"a problem of the family {family!r} is {family}/NUMBER, 0 to {LAST_NUMBER}, got {name!r}")
        raise unknown_name("problem", name, [*self.problems, *self.families])


def checked(problem: Problem, check: str) -> Problem:
    """Return a problem whose values are compared with right ones as `check` says, one of `CHECKS`."""
    if check == "published":
        return problem
    instead = {"equal": "python", "number": "python"} if check == "equal" else {"python": "number"}
    tests = tuple(dataclasses.replace(test, compare=instead.get(test.compare, test.compare)) for test in problem.tests)
    return dataclasses.replace(problem, tests=tests, as_base=check == "equal")


@functools.lru_cache(maxsize=4096)
def _of_family(family: str, number: int, check: str) -> Problem:
    return checked(make(family, number), check)
