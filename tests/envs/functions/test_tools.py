from __future__ import annotations

import enum
import pickle
import typing
from typing import Annotated, Any, Literal

import pytest
from gymnasium.utils.env_checker import check_env

from polyathlon.envs.errors import UsageError
from polyathlon.envs.functions import ToolEnv, ToolTask, function_schema
from polyathlon.envs.functions.schemas import fits, read_docstring


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def paint(
    thing: str,
    colour: Colour,
    coats: int = 1,
    glossy: bool = False,
    sizes: list[float] | None = None,
    kind: Literal["oil", "water"] = "oil",
) -> str:
    """Paint a thing.

    With care.

    Args:
        thing: what to paint,
            and where.
        colour (Colour): the colour.

    Returns:
        A report.
    """
    return f"{thing} {colour} {coats}"


def add(a: float, b: float) -> float:
    """Add two numbers.

    Args:
        a: one.
        b: other.
    """
    return a + b


def fail(a: int | None = None) -> None:
    """Fail."""
    raise RuntimeError("as always")


class Lamp:
    """A lamp."""

    def __init__(self) -> None:
        self.is_on = False

    def _load_scenario(self, state: dict[str, Any], long_context: bool = False) -> None:
        self.is_on = bool(state.get("on", False))

    def switch(self, on: bool) -> dict[str, Any]:
        """Switch the lamp."""
        self.is_on = on
        return {"on": on}


TASKS = [
    ToolTask("What are 2 and 3 together?", ["add(a=2, b=3)"], answer="5"),
    ToolTask("Switch the lamp on.", ["switch(True)"]),
    ToolTask(
        ["Switch it off.", "And on again."], [["switch(on=False)"], ["switch(on=True)"]], state={"Lamp": {"on": True}}
    ),
    ToolTask("Say hello.", check=lambda world, text: "hello" in text and not world.objects["Lamp"].is_on),
]


def env(**options) -> ToolEnv:
    return ToolEnv([add, fail, paint, Lamp], TASKS, **options)


def play(task: ToolEnv, number: int, messages: list[str]):
    task.reset(options={"task": number})
    total = 0.0
    for message in messages:
        text, reward, terminated, _, info = task.step(message)
        total += reward
        if terminated:
            break
    return total, text, terminated, info


def test_schemas_come_from_signature_and_docstring():
    assert function_schema(paint) == {
        "name": "paint",
        "description": "Paint a thing. With care.",
        "parameters": {
            "type": "dict",
            "required": ["thing", "colour"],
            "properties": {
                "thing": {"type": "string", "description": "what to paint, and where."},
                "colour": {"type": "string", "enum": ["red", "blue"], "description": "the colour."},
                "coats": {"type": "integer", "default": 1},
                "glossy": {"type": "boolean", "default": False},
                "sizes": {"type": "array", "items": {"type": "float"}, "default": None},
                "kind": {"type": "string", "enum": ["oil", "water"], "default": "oil"},
            },
        },
    }


def test_hints_of_many_kinds():
    def tool(a: Any, b: tuple[int, int], c: dict[str, int], d: Annotated[str, "x"], e: list, f: int | str):
        pass

    kinds = {name: declared["type"] for name, declared in function_schema(tool)["parameters"]["properties"].items()}
    assert kinds == {"a": "any", "b": "tuple", "c": "dict", "d": "string", "e": "array", "f": "any"}


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        (lambda x: x, "has no type hint"),
        (lambda *values: values, "tools take named parameters"),
        (3, "a tool is a Python function"),
        (eval("lambda: 1"), None),
    ],
)
def test_tools_without_a_schema_are_refused(tool, message):
    if message is None:
        assert function_schema(tool)["parameters"]["properties"] == {}
        return
    with pytest.raises(UsageError, match=message):
        function_schema(tool)


def test_an_unknown_hint_is_refused():
    def tool(a: complex) -> None:
        pass

    with pytest.raises(UsageError, match="allowed are str, int"):
        function_schema(tool)


def test_docstrings_are_split():
    assert read_docstring("Do it.\n\nArgs:\n    a (int): one\n        more\n    b: two\nReturns:\n    x: three") == (
        "Do it.",
        {"a": "one more", "b": "two"},
    )


@pytest.mark.parametrize(
    ("value", "declared", "is_fit"),
    [
        (1, {"type": "float"}, True), (1.0, {"type": "integer"}, False), (True, {"type": "integer"}, False), ("x", {"type": "string"}, True),
        ([1, 2], {"type": "array", "items": {"type": "integer"}}, True), ([1, "2"], {"type": "array", "items": {"type": "integer"}}, False),
        ("red", {"type": "string", "enum": ["red"]}, True), ("green", {"type": "string", "enum": ["red"]}, False), ({}, {"type": "dict"}, True),
        (None, {"type": "integer", "default": None}, True), (None, {"type": "integer", "default": 3}, False), (object(), {"type": "any"}, True),
    ],
)  # fmt: skip
def test_values_fit_their_schema(value, declared, is_fit):
    assert fits(value, declared) is is_fit


@pytest.mark.parametrize("number", range(3))
def test_the_reference_conversation_is_right(number):
    task = env()
    total, _, terminated, info = play(task, number, task.solution_messages(number))
    assert terminated and total == 1 and info["verdict"]["correct"]
    assert task.solution(number) in ("[add(a=2, b=3)]", "[switch(on=True)]", "[switch(on=False)]")


def test_a_check_decides_where_no_calls_are_given():
    assert play(env(), 3, ["hello"])[0] == 1
    assert play(env(), 3, ["bye"])[3]["verdict"]["reason"] == "the check at the end failed"
    assert play(env(), 3, ["[switch(on=True)]", "hello"])[0] == 0


def test_results_of_calls_are_told():
    total, text, terminated, _ = play(
        env(), 0, ["[add(a=2, b=3), fail(), fail(a='x'), add(a=1), nothing(), add(a=add(a=1, b=1), b=1)]"]
    )
    assert text.splitlines() == [
        "add: 5",
        "fail: Error during execution: as always",
        "fail: Error: a must be of type integer, got 'x'",
        "add: Error: add needs b",
        "nothing: Error: there is no tool 'nothing'; the tools are switch, add, fail, paint",
        "add: 3" if "add: 3" in text else "add: Error during execution: unsupported operand",
    ]
    assert not terminated and total == 0


def test_the_answer_must_be_said():
    assert play(env(), 0, ["[add(a=2, b=3)]", "It is 5."])[0] == 1
    assert (
        play(env(), 0, ["[add(a=2, b=3)]", "It is six."])[3]["verdict"]["reason"]
        == "the last message does not hold the answer"
    )


def test_dense_rewards_and_strict_turns():
    messages = ["[switch(on=False)]", "ok", "no"]
    assert play(env(reward="dense"), 2, messages)[0] == 0.5 and play(env(), 2, messages)[0] == 0
    assert play(env(strict_empty=True), 3, ["[add(a=1, b=1)]", "hello"])[3]["verdict"]["reason"].startswith(
        "calls were executed"
    )


def test_it_is_a_gymnasium_environment():
    check_env(ToolEnv([add], TASKS[:1]), skip_render_check=True)
    task = ToolEnv([add, Lamp], TASKS[:2])
    text, info = task.reset(seed=0)
    assert "add(a: float, b: float) Add two numbers.\n  a: one." in text and info["task"] in (0, 1)
    copy = pickle.loads(pickle.dumps(task))
    assert copy.step("[]")[0] == task.step("[]")[0]


def test_candidates_hold_the_right_message():
    task = env()
    task.reset(options={"task": 0})
    assert "[add(a=2, b=3)]" in task.current_candidates()
    task.step("[add(a=2, b=3)]")
    assert "5" in task.current_candidates()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ToolEnv([], TASKS), "needs functions and tasks"),
        (lambda: ToolEnv([add], []), "needs functions and tasks"),
        (lambda: ToolEnv([add, add], TASKS[:1]), "share a name"),
        (lambda: ToolEnv([add], [ToolTask("x", ["ad(a=1, b=2)"])]), "Did you mean 'add'"),
        (lambda: ToolEnv([add], [ToolTask("x", ["add(a=x)"])]), "task 0: .* no call with plain arguments"),
        (lambda: ToolEnv([add], [ToolTask(["x", "y"], [["add(a=1, b=2)"]])]), "has 2 turns, but calls for 1"),
        (lambda: env(reward="x"), "unknown reward"),
        (lambda: env(style="x"), "unknown style"),
        (lambda: env(max_steps=0), "max_steps must be a positive integer"),
        (lambda: env().begin(9), "named by its number, 0 to 3"),
        (lambda: env().begin("a"), "named by its number, 0 to 3"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_hints_of_several_or_untold_elements():
    def tool(a: tuple[int, str], b: typing.List, c: typing.Sequence, d: tuple[int, ...]):  # noqa: UP006
        pass

    found = function_schema(tool)["parameters"]["properties"]
    assert [found[name]["items"]["type"] for name in "abcd"] == ["any", "any", "any", "integer"]
    assert fits((1, "a"), found["a"])  # the second was refused as no integer
    empty = enum.Enum("Empty", {})

    def other(a: empty):
        pass

    other.__annotations__["a"] = empty
    with pytest.raises(UsageError, match="takes a member of Empty, which has none"):
        function_schema(other)


def test_a_dict_of_dicts_is_data_unless_its_only_key_is_a_tool():
    kept = []

    def keep(table: dict) -> str:
        """Keep a table."""
        kept.append(table)
        return str(table)

    task = ToolEnv([keep, add], [ToolTask("Keep it.", ["keep(table={'price': {'max': 10}})"])])  # could not be made
    assert play(task, 0, ["[keep(table={'price': {'max': 10}})]", "Done."])[0] == 1.0
    numbered = ToolEnv([keep, add], [ToolTask("Keep it.", ["keep(table={1: 'a'})"])])
    assert play(numbered, 0, ["[keep(table={1: 'a'})]", "Done."])[0] == 1.0  # the key came as a text
    play(task, 0, ["[keep(table={'a': add(a=1, b=2), 'b': 3})]"])
    assert kept[-1] == {"a": {"add": {"a": 1, "b": 2}}, "b": 3}, "what stands inside of data is data"


def test_a_state_that_nothing_takes_is_refused():
    with pytest.raises(UsageError, match="Did you mean 'Lamp'|Lamp"):
        ToolEnv([Lamp], [ToolTask("Switch it on.", ["switch(True)"], state={"Lmap": {"on": True}})])

    class Bell:
        def ring(self) -> str:
            return "dong"

    with pytest.raises(UsageError, match="gives a state to Bell, which has no _load_scenario"):
        ToolEnv([Bell], [ToolTask("Ring.", ["ring()"], state={"Bell": {"loud": True}})])
