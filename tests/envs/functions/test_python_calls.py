from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from polyathlon.envs.errors import UsageError
from polyathlon.envs.functions import decode_calls
from polyathlon.envs.functions.calls import Call, DecodeError, shown, write_calls
from polyathlon.envs.functions.python_calls import MAX_CALLS, MAX_DEPTH, _call, _parse, decode_python
from polyathlon.envs.functions.quick_calls import read_quickly


def value(source: str):
    """Return what an argument written as `source` is read as."""
    (call,) = decode_python(f"[f(a={source})]")
    return call.arguments["a"]


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("[f(a=1)]", [("f", {"a": 1})]),
        ("f(a=1), g(b='x')", [("f", {"a": 1}), ("g", {"b": "x"})]),
        ("```[f(a=1)]```", [("f", {"a": 1})]),
        ("\n [f(a=1)] \n", [("f", {"a": 1})]),
        ("[os.path.join(a=1)]", [("os.path.join", {"a": 1})]),
        ("[f()]", [("f", {})]),
        ("[f(3, a=1)]", [("f", {"a": 1})]),
        ("[f(a=1, a=2)]", [("f", {"a": 2})]),
        ("[f(a=1), g()][", None),
        ("[]", []),
        ("", []),
        ("`", []),
        ("[f(**b)]", [("f", {"**": "b"})]),
        ("['f'.join(a=1)]", [("join", {"a": 1})]),
    ],
)
def test_calls_are_read(text, calls):
    if calls is None:
        with pytest.raises(DecodeError):
            decode_python(text)
    else:
        assert decode_python(text) == [Call(*call) for call in calls]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("1", 1), ("-1", -1), ("+5", -5), ("~5", -5), ("not True", -1), ("1.5", 1.5), ("True", True), ("true", "true"), ("None", None),
        ("'a'", "a"), ('"it\'s"', "it's"), ("[1, 'x']", [1, "x"]), ("(1, 2)", (1, 2)), ("{'k': [1]}", {"k": [1]}), ("...", "..."),
        ("[...]", ["..."]), ("date(2020, 1)", "date(2020, 1)"), ("g(b=1)", {"g": {"b": 1}}), ("x[0]", "x[0]"), ("x[0:2]", "x[0:2]"),
        ("2 + 3 * 4", 14), ("2 ** 10", 1024), ("6 / 4", 1.5), ("2 * -3", -6), ("-(1)", -1), ("b'x'", b"x"), ("'a' 'b'", "ab"),
        ("[]", []), ("[1, -2.5, None]", [1, -2.5, None]), ("0", 0), ("-0", 0), ("007.5", 7.5), ("1e3", 1000.0), ("'\\n'", "\n"),
    ],
)  # fmt: skip
def test_values_follow_the_rules(source, expected):
    found = value(source)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    "source",
    [
        "a.b", "lambda: 1", "x if y else z", "{1, 2}", "[i for i in x]", "f'{x}'", "-x", "-'a'", "x + 1", "'a' * 3", "7 // 2", "7 % 2",
        "1 / 0", "10.0 ** 400", "9 ** 9 ** 9", "2 ** 100000", "{[1]: 2}", "{**x}", "not 'a'", "await x", "(yield)", "1 < 2", "x := 1",
        "'a", "007", "*x",
    ],
)  # fmt: skip
def test_anything_else_is_refused(source):
    with pytest.raises(DecodeError):
        value(source)


def test_nothing_is_evaluated(tmp_path):
    target = tmp_path / "canary"
    write = f"open({str(target)!r}, 'w').write('x')"
    for source in (
        write,
        f"1 + {write}",
        f"[{write}]",
        f"-{write}",
        f"({write})[0]",
        f"f'{{{write}}}'",
        f"__import__('os').system('touch {target}')",
    ):
        with contextlib.suppress(DecodeError):
            decode_python(f"[f(a={source})]")
    assert not target.exists()


@pytest.mark.parametrize("language", ["python", "java", "javascript"])
@pytest.mark.parametrize(
    "text",
    [
        "", " ", "x" * 1_000_000, "[f(a=1)]" * 100_000, "```python\n[f(a=1)]\n```\n```\n[g()]\n```", "```[f(a=1)]", "f(a='\0')", "\0" * 50,
        "f(a=" + "[" * 60_000 + "]" * 60_000 + ")", "f(a=" + "-" * 60_000 + "1)", "f(a=" + "9" * 60_000 + ")", "f(a=0x" + "f" * 60_000 + ")",
        "f(a=" + "1+" * 30_000 + "1)", "f(a=" + "b." * 30_000 + "c)", "f(a=b" + "()" * 15_000 + ")", "f(a=b" + "[0]" * 15_000 + ")",
        "f(a=1, a=2)", "f(a='\ud800')", "f(" * 10_000, "(" * 60_000, "'" * 60_000, '"' * 16_000, "f(a=1)," * 10_000, "f(a={" * 5_000,
        "new HashMap<" * 5_000, "f(a=" + "not " * 15_000 + "1)", "f(a=" + "lambda:" * 8_000 + "1)", "\u202e[f(a=1)]", "[f(a=1)]\r\n", "é(a=1)",
    ],
    ids=lambda text: ascii(text[:12]),
)  # fmt: skip
def test_bad_input_is_refused_or_read_in_no_time(text, language):
    start = time.process_time()
    try:
        calls = decode_calls(text, language)
        assert all(isinstance(call.name, str) and isinstance(call.arguments, dict) for call in calls)
        for call in calls:
            for one in call.arguments.values():
                assert len(shown(one)) <= 60
    except DecodeError as error:
        assert str(error) and len(str(error)) < 400
    assert time.process_time() - start < 2.0


def test_bounds_are_said():
    with pytest.raises(DecodeError, match=f"deeper than {MAX_DEPTH}"):
        decode_python("[f(a=" + "[" * 80 + "]" * 80 + ")]")
    with pytest.raises(DecodeError, match=f"at most {MAX_CALLS}"):
        decode_python("[" + "f(),".join([""] * (MAX_CALLS + 2)) + "]")
    assert len(decode_python("[" + "f(a=1)," * MAX_CALLS + "]")) == MAX_CALLS
    with pytest.raises(DecodeError, match="at most"):
        decode_python("x" * 200_000)


def test_warnings_of_the_parser_stay_inside(recwarn):
    assert value(r"'\d'") == r"\d"
    with pytest.raises(DecodeError):
        value("1if x")
    assert not recwarn.list


def test_an_unknown_language_is_refused():
    with pytest.raises(UsageError, match="Did you mean 'java'"):
        decode_calls("f()", "jawa")


NAMES = st.sampled_from(["f", "a.b", "if", "None", "x__y", "_q", "a..b", "a.1", "f2"])
SOURCES = st.sampled_from(
    [
        "1",
        "-2",
        "0",
        "007",
        "1.5",
        "-0.5",
        "1.",
        ".5",
        "'a'",
        '"b"',
        "'it''s'",
        "True",
        "None",
        "true",
        "[1, 'a']",
        "[]",
        "[[1]]",
        "{}",
        "(1,)",
        "1e5",
        "1_0",
        "''",
    ]
)
ARGUMENTS = st.lists(st.tuples(st.sampled_from(["a", "b", "class", "_", "a b"]), SOURCES), max_size=3)
GAPS = st.sampled_from(["", " ", "\n", "\t ", "\x0b", "\u00a0"])


@st.composite
def near_calls(draw) -> str:
    gap = draw(GAPS)
    calls = []
    for _ in range(draw(st.integers(0, 3))):
        arguments = f",{gap}".join(f"{name}{gap}={draw(GAPS)}{source}" for name, source in draw(ARGUMENTS))
        calls.append(f"{draw(NAMES)}({gap}{arguments}{draw(st.sampled_from(['', '', ',', ' ']))})")
    return f"[{gap}{f',{gap}'.join(calls)}{draw(st.sampled_from(['', '', ',']))}]{draw(st.sampled_from(['', '', ']', ' ']))}"


@settings(max_examples=600, deadline=None)
@given(near_calls())
@example("[f(a=-0.0)]")
@example("[f(a=[1,])]")
@example("[f(a='\ud800')]")
@example("[f(a='x\r')]")
def test_the_quick_reader_agrees_with_the_full_one(text):
    quick = read_quickly(text, 8)
    if quick is not None:
        body = _parse(text)
        full = [_call(element) for element in body.elts]
        assert quick == full and repr(quick) == repr(full)


@settings(max_examples=400, deadline=None)
@given(st.text(max_size=60) | st.text("[](){}=,.'\"f a1-+*\\n:", max_size=40))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(DecodeError):
        decode_python(text)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 10**20)
    | st.floats(0, 1e300)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("ab'\"\\ ", max_size=3), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["a", "b"]), PLAIN, max_size=2), max_size=3))
def test_what_is_written_is_read_back(arguments):
    calls = [Call(f"name{k}", one) for k, one in enumerate(arguments)]
    assert decode_python(write_calls(calls)) == calls
