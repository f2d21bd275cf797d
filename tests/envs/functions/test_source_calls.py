from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyathlon.envs.functions import quick_sources, source_calls
from polyathlon.envs.functions.calls import DecodeError
from polyathlon.envs.functions.checking import JAVA_TYPES, JAVASCRIPT_TYPES
from polyathlon.envs.functions.converters import _puts, convert_java, convert_javascript
from polyathlon.envs.functions.decoding import decode_calls

pytest.importorskip("tree_sitter_java")


def read(text: str, language: str) -> tuple[str, dict]:
    (call,) = decode_calls(text, language)
    return call.name, call.arguments


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("[Foo.bar(a=1, b=2L);]", "Foo.bar", {"a": "1", "b": "2L"}),
        ('[Foo.bar(a="x y", b=\'c\');]', "Foo.bar", {"a": "x y", "b": "c"}),
        ("f(a=TimeUnit.DAYS, b=x.get(1));", "f", {"a": "TimeUnit.DAYS", "b": "x.get(1)"}),
        ("f(a=new int[]{1, 2}, b=3);", "f", {"a": "new int[]{1,2}", "b": "3"}),
        ('f(a=new ArrayList<>(Arrays.asList("a", "b")), b=3);', "f", {"a": 'new ArrayList<>(Arrays.asList("a", "b"))', "b": "3"}),
        # the body of an anonymous class is lost
        ('f(a=new HashMap<String, Integer>() {{ put("a", 1); }}, b=3);', "f", {"a": "new HashMap<String,Integer>()", "b": "3"}),
        ("f(flag, b=3);", "f", {"*": "flag", "b": "3"}),
    ],
)  # fmt: skip
def test_java_calls(text, name, arguments):
    assert read(text, "java") == (name, arguments)


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("[f(a=1, b='x')]", "f", {"a": "1", "b": "x"}),
        ("f(a=[1, 2], b={k: 1}, c=() => 1)", "f", {"a": "[1, 2]", "b": "{k: 1}", "c": "() => 1"}),
        ("o.m(a=new Date(), true)", "o.m", {"a": "new Date()", "*": "true"}),
    ],
)
def test_javascript_calls(text, name, arguments):
    assert read(text, "javascript") == (name, arguments)


@pytest.mark.parametrize("language", ["java", "javascript"])
@pytest.mark.parametrize(
    "text", ["[f(a=1, a=2, b=3);]", "[no call at all]", "[f(a=;]", "[1 + 2;]", "[f(x, y, b=3);]", ""]
)
def test_other_texts_are_refused(text, language):
    with pytest.raises(DecodeError):
        decode_calls(text, language)


@pytest.mark.parametrize(
    ("text", "kind", "element", "expected"),
    [
        ("5", "integer", None, 5), ("-5", "byte", None, -5), ("5L", "integer", None, "5L"), ("5L", "long", None, 5), ("5", "long", None, "5"),
        ("1.5f", "float", None, 1.5), ("1.5", "float", None, "1.5"), ("3", "double", None, 3.0), ("3e-2", "double", None, 0.03),
        ("true", "boolean", None, True), ("True", "boolean", None, "True"), ("x", "String", None, "x"), ("x", "any", None, "x"),
        ("new int[]{1, 2, }", "Array", "integer", [1, 2]), ('new String[]{"a"}', "Array", "String", ['"a"']), ("[1]", "Array", "integer", "[1]"),
        ('new ArrayList<String>(Arrays.asList("a", "b,c"))', "ArrayList", "String", ["a", "", ""]),
        ("new ArrayList<>() {{ add(1); add(2); }}", "ArrayList", "integer", [1, 2]), ("new ArrayList<>()", "ArrayList", "integer", []),
        ("new ArrayList<>() {{}}", "ArrayList", "integer", []), ("new ArrayList<>() {{ }}", "ArrayList", "integer", []),
        ("new ArrayList<List<String>>()", "ArrayList", "any", "new ArrayList<List<String>>()"),
        ('new HashMap<String, Object>() {{ put("a", 1_0); put("b", "x"); put("c", 2L); }}', "HashMap", None, {"a": 10, "b": "x", "c": 2}),
        ("new HashMap<>()", "HashMap", None, {}), ("new HashMap<>() {}", "HashMap", None, {}), ("map", "HashMap", None, "map"),
        ("5\n", "integer", None, 5), ("5L\n", "long", None, 5), ("9" * 5000, "integer", None, "9" * 5000),
    ],
)  # fmt: skip
def test_java_values(text, kind, element, expected):
    found = convert_java(text, kind, element)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "kind", "element", "expected"),
    [
        ("'a'", "String", None, "a"), ("a", "String", None, "a"), ("5", "integer", None, 5), ("5.0", "integer", None, "5.0"),
        ("5", "float", None, 5.0), ("5e1", "float", None, "5e1"), ("5n", "Bigint", None, 5), ("5", "Bigint", None, "5"),
        ("false", "Boolean", None, False), ("[1, 2]", "array", "integer", [1, 2]), ("['a', \"b\"]", "array", "String", ["a", "b"]),
        ("[]", "array", "float", []), ("new Array(1, 2)", "array", "integer", [1, 2]), ("[[1, 2], [3]]", "array", "array", [[1, 2], [3]]),
        ("[ [1], ['a'] ]", "array", "array", [[1], ["a"]]), ("new Array([1], [2])", "array", "array", [[1], [2]]),
        ("[1, 'two', true]", "array", None, [1, "two", True]), ("x", "array", "any", "x"), ("{}", "dict", None, {}),
        ("{'a': 1, b: true, c: [1, 2], d: x}", "dict", None, {"a": 1, "b": True, "c": [1, 2], "d": "x"}), ("x", "dict", None, "x"),
    ],
)  # fmt: skip
def test_javascript_values(text, kind, element, expected):
    found = convert_javascript(text, kind, element)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    "text",
    [
        "[" + "[]," * 1300, "[" * 4000, "new HashMap<>() {" + " " * 4000, "new ArrayList<>() {{" + " " * 4000, "new HashMap<" * 300, "{" + "a:" * 2000,
        "{" + ":" * 4000 + "}", "{" + "a: 1, " * 600 + "}", "add(" * 1000, "new ArrayList<>() {{" + "add(" * 900, "put(\"" * 800, "x" * 10**6,
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_no_value_holds_the_converters_up(text):
    start = time.process_time()
    for element in (None, "array", "integer"):
        convert_javascript(text, "array", element)
        convert_javascript(text, "dict")
    for kind in ("Array", "ArrayList", "HashMap"):
        convert_java(text, kind, "String")
    assert time.process_time() - start < 2.0


SOURCE = st.text("[]{}(),:'\"newArayHshMpLit<>.ad tu1\n", max_size=30) | st.text(max_size=20)


@settings(max_examples=300, deadline=None)
@given(SOURCE, st.sampled_from([None, "integer", "String", "any"]))
def test_any_source_is_converted_or_stays_a_text(text, element):
    for kind, expected in JAVA_TYPES.items():
        assert isinstance(convert_java(text, kind, element), expected | str if expected is not str else str)
    for kind, expected in JAVASCRIPT_TYPES.items():
        assert isinstance(convert_javascript(text, kind, element), expected | str if expected is not str else str)


@settings(max_examples=150, deadline=None)
@given(SOURCE, st.sampled_from(["java", "javascript"]))
def test_any_text_is_read_or_refused(text, language):
    try:
        (call,) = decode_calls(f"[f(a={text}, b=1);]", language)
        assert all(isinstance(value, str) for value in call.arguments.values())
    except DecodeError:
        pass


TEXTS = st.sampled_from(['"a, b"', '""', "'c'", '"(]<"', "'it'", '"\\\\n"', '"é"'])
NUMBERS = st.sampled_from(
    ["0", "-0", "12", "-3", "1.5", "-0.25f", "2L", "5n", "1e5", "007", "0x1F", "1.", ".5", "+1", "2d", "1_000", "1.5L"]
)
NAMES = st.sampled_from(
    [
        "a",
        "b",
        "a.b",
        "A.B_c",
        "x1",
        "true",
        "false",
        "null",
        "undefined",
        "this",
        "new",
        "super",
        "async",
        "of",
        "get",
        "let",
        "record",
        "yield",
        "_",
        "__",
        "$d",
        "int",
        "String",
        "class",
    ]
)
SCALARS = st.one_of(TEXTS, NUMBERS, NAMES)
GAPS = st.sampled_from(["", "", "", " ", "\n  ", "\t"])
LISTS = st.lists(SCALARS, max_size=3)


@st.composite
def plain_calls(draw) -> str:
    """Calls near the border of what is read without a grammar."""

    def value() -> str:
        inside = f",{draw(GAPS)}".join(draw(LISTS))
        return draw(
            st.one_of(
                SCALARS,
                SCALARS,
                st.just(f"[{inside}]"),
                st.builds("{{{}: {}, {}:[{}]}}".format, NAMES, SCALARS, TEXTS, st.just(inside)),
                st.builds("new {}[]{}{{{}}}".format, NAMES, GAPS, st.just(inside)),
                st.builds(
                    "new ArrayList<{}>(Arrays.asList({}))".format,
                    st.sampled_from(["", "String", "a.b"]),
                    st.just(inside),
                ),
            )
        )

    arguments = [f"{draw(NAMES)}{draw(GAPS)}={draw(GAPS)}{value()}{draw(GAPS)}" for _ in range(draw(st.integers(0, 3)))]
    end = draw(st.sampled_from([";", ";", "", ";;", ",", ".x"]))
    return f"{draw(NAMES)}.{draw(NAMES)}({','.join(arguments)}){draw(GAPS)}{end}{draw(GAPS)}"


@settings(max_examples=120, deadline=None)
@given(plain_calls(), st.sampled_from(["java", "javascript"]))
def test_what_is_read_without_a_grammar_is_what_the_grammar_reads(text, language):
    def found() -> object:
        try:
            return decode_calls(f"[{text}]", language)
        except DecodeError as error:
            return str(error)

    quickly = found()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_calls, "read_quickly", lambda source, language: None)
        assert quickly == found()


@pytest.mark.parametrize(
    ("language", "text", "is_quick"),
    [
        (
            "java",
            'a.B.c(d="x (y)", e=-2L, f=G.H, i=new Object[] {1, 2}, j=new ArrayList<>(Arrays.asList(1, k)));',
            True,
        ),
        ("java", "f(a=1)", False),  # the grammar recovers from long calls only
        ("java", "f(a=new HashMap<String, Integer>());", False),
        ("javascript", "f(a='x', b=[1, \"y\"], c={d: 1, 'e': [f]})", True),
        ("javascript", "f(a=() => 1)", False),
        ("javascript", "f(a=this)", False),
    ],
)
def test_the_plainest_calls_are_read_without_a_grammar(language, text, is_quick):
    assert (quick_sources.read_quickly(text, language) is not None) == is_quick


def test_a_map_of_puts_without_an_end_is_read_at_once():
    text = "new HashMap<>() {" + 'put("",' * 580 + "}"  # took 1.5 seconds, the cube of its length
    began = time.thread_time()
    assert convert_java(text, "HashMap") == {}
    assert time.thread_time() - began < 0.15


@given(st.lists(st.sampled_from(['put("', '",', '")', ")", " ", "\n", "a", "1,", '"', "put(", "p", "\t"]), max_size=14))
@settings(deadline=None, max_examples=200)
def test_puts_are_those_of_the_leaderboards_expression(parts):
    text = "".join(parts)
    assert _puts(text) == re.findall(r"put\(\"(.*?)\",\s*(.*?)\)", text)
