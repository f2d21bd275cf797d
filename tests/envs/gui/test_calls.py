"""Calls in words are read, never run, and refused with a reason."""

from __future__ import annotations

import pytest

from polyathlon.envs.gui.calls import Call, CallError, read_call


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
