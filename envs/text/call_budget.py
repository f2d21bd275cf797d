"""A budget of function calls for a computation that a policy's answer controls."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")


class OverBudget(BaseException):
    """More functions were called than allowed; no `except Exception` on the way holds it up."""


def within_calls(work: Callable[[], Result], budget: int) -> Result:
    """Run some Python code, and stop it after a number of function calls.

    Calls are counted, not seconds, so that a verdict does not depend on the machine or on what else runs there. Work
    inside one call to compiled code is not interrupted: the sizes of numbers have to be bounded beforehand.

    Args:
        work: the computation. It runs in this thread.
        budget: how many Python functions it may call.

    Raises:
        OverBudget: it called more, also where it caught the exception itself.
    """
    called = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal called
        called += event == "call"
        if called > budget:
            raise OverBudget(f"more than {budget:,} function calls")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        result = work()
    finally:
        sys.setprofile(before)
    if called > budget:
        raise OverBudget(f"more than {budget:,} function calls")
    return result
