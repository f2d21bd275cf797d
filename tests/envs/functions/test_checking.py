from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from polyathlon.envs.errors import UsageError
from polyathlon.envs.functions.calls import Call
from polyathlon.envs.functions.checking import check_call, check_calls, count_matches, normalise_text


def schema(required=("p",), name="f", **properties):
    return {"name": name, "parameters": {"properties": properties, "required": list(required)}}


def verdict(value, options, kind, items=None, language="python"):
    """Judge f(p=value) where p has a type and acceptable values."""
    declared = {"type": kind} | ({"items": {"type": items}} if items else {})
    return check_call(schema(p=declared), Call("f", {"p": value}), {"f": {"p": options}}, language)


def test_texts_are_compared_without_blanks_case_and_punctuation():
    assert normalise_text("It's New-York, 1.5 * x_^/") == 'it"snewyork15x'


@pytest.mark.parametrize(
    ("value", "options", "kind", "items", "code"),
    [
        (3, [3.0], "float", None, "right"),
        (3.0, [3], "integer", None, "wrong_type"),
        (True, [1], "integer", None, "wrong_type"),
        (1, [True], "boolean", None, "wrong_type"),
        ("1", [1], "integer", None, "wrong_type"),
        (2, [1], "integer", None, "wrong_value"),
        ("New-York", ["new york"], "string", None, "right"),
        ("york", ["new york"], "string", None, "wrong_value"),
        ("", ["x", ""], "string", None, "right"),
        (["a"], [["A "]], "array", "string", "right"),
        (["a", "b"], [["b", "a"]], "array", "string", "wrong_value"),
        ([1], [[1.0]], "array", "integer", "right"),
        ([1.0], [[1]], "array", "float", "right"),
        (["1"], [[1]], "array", "integer", "wrong_element_type"),
        ([], [[1], ""], "array", "integer", "right"),
        ((1, 2), [[1, 2]], "tuple", "integer", "right"),
        ([1, 2], [[1, 2]], "tuple", "integer", "right"),
        ((1, 2), [[1, 2]], "array", "integer", "wrong_type"),
        ({"a": 1}, [{"a": [True]}], "dict", None, "right"),
        ({"a": "X."}, [{"a": ["x"], "b": ["", 1]}], "dict", None, "right"),
        ({"a": "x"}, [{"a": ["x"], "b": [1]}], "dict", None, "wrong_value"),
        ({"a": "x", "c": 1}, [{"a": ["x"]}], "dict", None, "wrong_value"),
        ({}, [{"a": [""]}], "dict", None, "right"),
        ([{"a": 1}], [[{"a": [1]}]], "array", "dict", "right"),
        ([{"a": 1}, {"a": 1}], [[{"a": [1]}]], "array", "dict", "wrong_value"),
        # gold holds the name of a variable
        ("count", ["count"], "integer", None, "right"),
        (5, ["count"], "integer", None, "wrong_value"),
        ("Count", ["count"], "integer", None, "wrong_value"),
        (10**400, [1.0], "float", None, "wrong_type"),
        (None, [1], "integer", None, "wrong_type"),
        (1, [1], "colour", None, "unknown_type"),
    ],
)
def test_values(value, options, kind, items, code):
    found = verdict(value, options, kind, items)
    assert found.code == code and found.ok == (code == "right")
    assert found.parameter == (None if found.ok else "p")


@pytest.mark.parametrize(
    ("value", "options", "kind", "language", "code"),
    [
        ("5L", [5], "long", "java", "right"),
        ("5", [5], "long", "java", "wrong_type"),
        (5, [5], "integer", "java", "wrong_type"),
        ("true", [True], "boolean", "java", "right"),
        ("5n", [5], "Bigint", "javascript", "right"),
        ("{a: 'x'}", [{"a": ["x"]}], "dict", "javascript", "right"),
    ],
)
def test_source_values(value, options, kind, language, code):
    assert verdict(value, options, kind, language=language).code == code


NAMED = schema(("a",), a={"type": "integer"}, b={"type": "integer"})
GOLD = {"f": {"a": [1], "b": [2, ""]}}


@pytest.mark.parametrize(
    ("call", "code", "parameter"),
    [
        (Call("f", {"a": 1}), "right", None),
        (Call("f", {"a": 1, "b": 2}), "right", None),
        (Call("g", {"a": 1}), "wrong_function", None),
        (Call("f", {}), "missing_required", "a"),
        (Call("f", {"a": 1, "c": 1}), "unexpected_parameter", "c"),
        (Call("f", {"a": 1, "b": 3}), "wrong_value", "b"),
        (Call("f", {"a": 1, "*": 3}), "unexpected_parameter", "*"),
    ],
)
def test_parameters(call, code, parameter):
    assert check_call(NAMED, call, GOLD)[1:] == (code, parameter)


def test_a_parameter_that_gold_demands_must_be_given():
    assert check_call(NAMED, Call("f", {"a": 1}), {"f": {"a": [1], "b": [2]}})[1:] == ("missing_parameter", "b")
    # known to the function, unknown to gold
    assert check_call(NAMED, Call("f", {"a": 1, "b": 2}), {"f": {"a": [1]}})[1:] == ("unexpected_parameter", "b")


def test_calls_of_several_kinds():
    both = [NAMED, schema(("a",), "g", a={"type": "integer"})]
    f, g = Call("f", {"a": 1}), Call("g", {"a": 7})
    golds = [GOLD, {"g": {"a": [7]}}]
    assert check_calls(both, [f, g], golds).ok and check_calls(both, [g, f], golds).ok
    assert check_calls(both, [f], golds).code == "wrong_count"
    assert check_calls(both, [f, f], golds)[1:] == ("wrong_function", None)
    assert check_calls(both, [f, Call("g", {"a": 8})], golds)[1:] == ("wrong_value", "a")
    assert check_calls(both, [g], golds[1:], "multiple").ok
    assert check_calls(both, [f, f], golds, "simple").code == "wrong_count"
    assert check_calls(both, [g], [{"h": {"a": [7]}}], "multiple").code == "unknown_function"
    assert count_matches(both, [g, g], golds, "python") == 1


def test_matching_is_greedy_as_the_leaderboards_is():
    # the first gold call takes the call that only the second one could have used
    golds = [{"f": {"a": [1, 2]}}, {"f": {"a": [1]}}]
    calls = [Call("f", {"a": 1}), Call("f", {"a": 2})]
    assert not check_calls([NAMED], calls, golds).ok
    assert check_calls([NAMED], calls[::-1], golds).ok


def test_an_unknown_language_is_refused():
    with pytest.raises(UsageError, match="unknown language 'cobol'"):
        verdict(1, [1], "integer", language="cobol")


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=2),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2) | st.tuples(inner)
    ),
    max_leaves=5,
)
KINDS = st.sampled_from(["string", "integer", "float", "boolean", "array", "tuple", "dict", "any"])


@settings(max_examples=400, deadline=None)
@example({"a": 1}, [{"a": 1}], "dict", "any")
@example({}, [{"a": 1}], "dict", "any")
@example({"a": "b"}, [{"a": {"b": 1}}], "dict", "any")
@example([{"a": 1}], [[{"a": 1}], 3], "array", "dict")
@given(ANY, st.lists(ANY, max_size=3), KINDS, st.sampled_from(["string", "integer", "dict", "any", "float"]))
def test_any_value_against_any_gold_is_a_verdict(value, options, kind, items):
    found = verdict(value, options, kind, items)
    assert isinstance(found.ok, bool) and isinstance(found.code, str)
