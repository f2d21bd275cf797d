"""Calls in words are read, never run, and refused with a reason."""

from __future__ import annotations

import pytest

from polyathlon.envs.errors import UsageError
from polyathlon.envs.gui.calls import Call, CallError, read_call
from polyathlon.envs.gui.struct_form import struct_of, struct_space, text_of


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("click(12)", Call("click", (12,))),
        (' fill(7, "abc")\n', Call("fill", (7, "abc"))),
        ("```python\nselect(5, 'May')\n```", Call("select", (5, "May"))),
        ("action: press('Control+a')", Call("press", ("Control+a",))),
        ("drag(10, 20.5, 60, 80)", Call("drag", (10, 20.5, 60, 80))),
        ("scroll(0, -200)", Call("scroll", (0, -200))),
        ("noop()", Call("noop", ())),
    ],
)
def test_a_call_is_read_and_written(text, call):
    assert read_call(text) == call
    assert read_call(str(call)) == call


def test_texts_survive_being_written():
    for text in ('say "hi"', "back\\slash", "a\nb", "ünïcode 漢字"):
        assert read_call(str(Call("fill", (1, text)))).arguments[1] == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "one call"),
        ("click", "one call of a plain name"),
        ("click(1); click(2)", "one call"),
        ("click(1) or click(2)", "one call of a plain name"),
        ("__import__('os')", "no action '__import__'"),
        ("__import__('os').system('true')", "plain name"),
        ("clik(3)", r"did you mean click\(ref\)"),
        ("click(ref=3)", "by their places"),
        ("click(*[3])", "by their places"),
        ("click()", "takes 1 arguments, got 0"),
        ('click("3")', "whole number"),
        ("click(3.5)", "whole number"),
        ("click(True)", "whole number"),
        ("click(1 + 2)", "written out"),
        ("click(x)", "written out"),
        ("fill(3, 4)", "text in quotation marks"),
        ("scroll(0, 1e999)", "at most"),
        ("click(10**9)", "written out"),
        ('fill(1, "\\ud800")', "lone surrogate"),
        ('fill(1, "\\x07")', "control character"),
        (f'fill(1, "{"x" * 1001}")', "at most 1000"),
        ("x" * 100_000, "one short call"),
        ("(" * 3000 + ")" * 3000, "short call|one call"),
    ],
)
def test_anything_else_is_refused_with_its_reason(text, reason):
    with pytest.raises(CallError, match=reason):
        read_call(text)


@pytest.mark.parametrize(
    "text",
    ["click(12)", 'fill(7, "a \\"b\\" c")', 'select(5, "May")', 'press("Enter")', "drag(10, 20.5, 60, 80)", "scroll(0, -200)",
     'goto("second.html")', "tab(1)", "noop()"],
)  # fmt: skip
def test_a_call_and_its_record_say_the_same(text):
    record = struct_of(text)
    assert struct_space().contains(record)
    assert text_of(record) == text


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("click(1)", "a record with 'name'"),
        ({"ref": 1}, "a record with 'name'"),
        ({"name": "clik", "ref": 1}, "click"),
        ({"name": 99}, "unknown call"),
        ({"name": "fill", "ref": 1}, "'text' is missing"),
        ({"name": "click", "ref": 1.5}, "whole number"),
        ({"name": "click", "ref": True}, "whole number"),
        ({"name": "press", "text": 3}, "is a text"),
        ({"name": "scroll", "x": "far", "y": 0}, "'x' is a number"),
    ],
)
def test_what_is_no_record_of_a_call_is_refused(record, reason):
    with pytest.raises(UsageError, match=reason):
        text_of(record)


def test_a_number_that_is_none_makes_a_call_that_is_refused():
    with pytest.raises(CallError):
        read_call(text_of({"name": "click_at", "x": float("nan"), "y": 1}))
