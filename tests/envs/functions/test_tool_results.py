"""What tools give back, of whatever kind they are, and reference calls that do not fit them."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import os
import subprocess
import sys
import threading
import warnings
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import pytest

from polyathlon.envs.errors import UsageError
from polyathlon.envs.functions import ToolEnv, ToolTask
from polyathlon.envs.functions.results import NoPlainResult, awaited, result_text
from polyathlon.envs.functions.schemas import fits


class Shape(enum.Enum):
    ROUND = "round"
    SQUARE = "square"


@dataclasses.dataclass
class Point:
    x: int = 1


def env_of(*functions, calls=(), answer=None):
    env = ToolEnv(list(functions), [ToolTask("Do it.", list(calls), answer=answer)])
    env.reset(options={"task": 0})
    return env


async def add(a: int, b: int = 2) -> int:
    """Add."""
    await asyncio.sleep(0)
    return a + b


class Account:
    def __init__(self) -> None:
        self.held = 0
        self._lock: asyncio.Lock | None = None

    async def pay(self, amount: int) -> int:
        """Pay in."""
        # a lock belongs to the loop that it was first used in
        self._lock = self._lock or asyncio.Lock()
        async with self._lock:
            await asyncio.sleep(0.001)
            self.held += amount
        return self.held


def test_async_tools_are_awaited():
    env = env_of(add, calls=["add(a=3, b=4)"], answer="7")
    assert env.step("[add(a=3, b=4), add(a=add(a=1, b=1))]")[0] == "add: 7\nadd: 4"
    assert env.step("7")[4]["verdict"]["correct"]
    env = env_of(Account, calls=["pay(amount=2)", "pay(amount=3)"])
    assert env.step("[pay(amount=2), pay(amount=3)]")[0] == "pay: 2\npay: 5"
    assert env.step("Done.")[4]["verdict"]["correct"]


def test_async_tools_are_awaited_inside_of_a_running_loop_and_in_threads_and_after_a_fork():
    async def inside() -> Any:
        return awaited(add(1, 1))

    assert asyncio.run(inside()) == 2
    found: list[int] = []
    threads = [threading.Thread(target=lambda k=k: found.append(awaited(add(k)))) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(2, 10))
    pid = os.fork()
    if pid == 0:
        os._exit(awaited(add(1, 1)))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2


def leave(code: int = 1) -> str:
    """Leave."""
    sys.exit(code)


async def leave_later() -> str:
    """Leave."""
    raise SystemExit(3)


def test_a_tool_cannot_end_the_process_that_trains():
    env = env_of(leave, leave_later, add)
    said = env.step("[leave(), leave(code=0), leave_later(), add(a=1)]")[0].splitlines()
    assert said[:3] == [
        "leave: Error during execution: SystemExit 1",
        "leave: Error during execution: SystemExit 0",
        "leave_later: Error during execution: SystemExit 3",
    ]
    assert said[3] == "add: 3"


def test_an_interruption_by_the_user_goes_through():
    def stop() -> str:
        """Stop."""
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        env_of(stop).step("[stop()]")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"), (1, "1"), (None, "None"), (1.5, "1.5"), ([1, "a"], "[1, 'a']"), ((1,), "(1,)"), ({"a": 1}, '{"a": 1}'),
        ({"b", "a", "c"}, "{'a', 'b', 'c'}"), (frozenset({2, 1}), "frozenset({1, 2})"), (set(), "set()"),
        ({"a": {"z", "y"}}, "{'a': {'y', 'z'}}"), ([{"b", "a"}], "[{'a', 'b'}]"), (Point(), "Point(x=1)"),
        (Decimal("1.5"), "1.5"), (PurePosixPath("a/b"), "a/b"), (np.float64(2.5), "2.5"), (np.arange(3), "[0 1 2]"),
        (range(3), "range(0, 3)"), (Shape.ROUND, "Shape.ROUND"), (b"a", "b'a'"), ("<object at 0x7f>", "<object at 0x7f>"),
        (["<object at 0x7f>"], "['<object at 0x7f>']"), (frozenset(), "frozenset()"), ((), "()"),
    ],
)  # fmt: skip
def test_results_are_texts_that_say_what_they_are(value, text):
    assert result_text(value) == text


def test_texts_of_sets_are_the_same_in_every_process():
    program = "from polyathlon.envs.functions.results import result_text; print(result_text({'a', 'b', 'c', 'd', 'e'}))"
    said = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert said == {"{'a', 'b', 'c', 'd', 'e'}\n"}


@pytest.mark.parametrize(
    "value", [object(), lambda: 1, (k for k in "a"), map(str, "a"), [object()], {"a": object()}, iter([1])]
)
def test_results_without_a_text_of_their_own_are_errors_and_a_warning(value):
    with pytest.raises(NoPlainResult, match="no plain value"):
        result_text(value)

    def give() -> Any:
        """Give."""
        return value

    with pytest.warns(UserWarning, match="the tool 'give': a result of type"):
        said = env_of(give).step("[give()]")[0]
    assert said.startswith("give: Error during execution: a result of type") and "0x" not in said


def draw(mode: Literal["round", "square"] = "round", size: int = 1, names: list[str] | None = None) -> str:
    """Draw."""
    return mode


def test_what_does_not_fit_is_said_in_full():
    env = env_of(draw)
    said = env.step("[draw(mode='oval'), draw(size='x'), draw(names=[1]), draw(colour=1)]")[0].splitlines()
    assert said == [
        "draw: Error: mode must be one of 'round', 'square', got 'oval'",
        "draw: Error: size must be of type integer, got 'x'",
        "draw: Error: names must be of type array of string, got [1]",
        "draw: Error: draw has no parameter 'colour'; it takes mode, size, names",
    ]


def test_the_values_of_a_literal_may_be_of_several_types():
    declared = {"type": "integer", "enum": [1, "a", None]}
    assert [fits(value, declared) for value in (1, "a", None, True, 1.0, 2, "b")] == [True] * 3 + [False] * 4
    assert fits(1, {"type": "float", "enum": [1.0]})


def paint(shape: Shape, other: Shape | None = None) -> str:
    """Paint."""
    return f"{shape.name} {None if other is None else other.name}"


def test_a_function_gets_members_of_its_enum():
    env = env_of(paint, calls=["paint('round', 'square')"])
    assert (
        env.step("[paint(shape='round', other='square'), paint(shape='square')]")[0]
        == "paint: ROUND SQUARE\npaint: SQUARE None"
    )
    assert env.step("Done.")[4]["verdict"]["correct"]
    env.reset(options={"task": 0})
    assert env.step("[paint(shape='ROUND')]")[0] == "paint: Error: shape must be one of 'round', 'square', got 'ROUND'"


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("add(a='x')", "a must be of type integer, got 'x'"),
        ("add(c=3)", "add needs a"),
        ("add(a=1, c=3)", "add has no parameter 'c'; it takes a, b"),
        ("add('x')", "a must be of type integer"),
        ("add(1, 2, 3)", "add takes 2 arguments, got 3"),
        ("add(1, a=2)", "add gets a twice"),
        ("add()", "add needs a"),
        ("add(a=add(a='x'))", "a must be of type integer, got 'x'"),
        ("draw(mode='oval')", "mode must be one of 'round', 'square'"),
    ],
)
def test_a_reference_call_that_does_not_fit_is_refused_when_the_task_is_made(call, why):
    with pytest.raises(UsageError, match="task 0 does not fit its tool: .*" + why) as found:
        env_of(add, draw, calls=[call])
    assert call in str(found.value)


def test_reference_calls_that_fit_are_taken():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in ("add(1)", "add(1, b=2)", "add(a=add(1, 1))", "draw()", "draw(names=['a'])", "draw('square', 2)"):
            env_of(add, draw, calls=[call])
