"""Are calls what was asked for? The rules of the Berkeley Function Calling Leaderboard, restated.

Patil et al. 2025, "The Berkeley Function Calling Leaderboard: from tool use to agentic evaluation of large language
models". A gold call is {function: {parameter: [acceptable values]}}, where "" among the values marks a parameter that may
be left out. `scripts/record_function_verdicts.py` compares these rules with the leaderboard's own on mutated calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from polyathlon.envs.errors import unknown_name

from .calls import LANGUAGES, Call
from .converters import CONVERTERS

Schema = Mapping[str, Any]
Gold = Mapping[str, Mapping[str, Sequence[Any]]]

PYTHON_TYPES: dict[str, type] = {
    "string": str, "any": str, "integer": int, "float": float, "boolean": bool, "array": list, "tuple": list, "dict": dict,
}  # fmt: skip
JAVA_TYPES: dict[str, type] = {
    "byte": int, "short": int, "integer": int, "long": int, "float": float, "double": float, "boolean": bool, "char": str,
    "String": str, "any": str, "Array": list, "ArrayList": list, "HashMap": dict,
}  # fmt: skip
JAVASCRIPT_TYPES: dict[str, type] = {
    "String": str, "any": str, "integer": int, "Bigint": int, "float": float, "Boolean": bool, "array": list, "dict": dict,
}  # fmt: skip
TYPES = dict(zip(LANGUAGES, (PYTHON_TYPES, JAVA_TYPES, JAVASCRIPT_TYPES)))
_WITH_ELEMENTS = frozenset({"array", "tuple", "Array", "ArrayList"})
_DROPPED = {ord(character): None for character in " ,./-_*^"} | {ord("'"): '"'}


class CallVerdict(NamedTuple):
    """Whether a call is right, and if not, what is wrong with it (`code`) and where (`parameter`)."""

    ok: bool
    code: str = "right"
    parameter: str | None = None


RIGHT = CallVerdict(True)


def normalise_text(text: str) -> str:
    """Return a text without blanks and the characters `,./-_*^`, in lower case, with double quotes only."""
    return text.translate(_DROPPED).lower()


def _loose(value: Any) -> Any:
    return normalise_text(value) if type(value) is str else value


def check_call(schema: Schema, call: Call, gold: Gold, language: str = "python") -> CallVerdict:
    """Judge one call.

    Args:
        schema: the function: `name` and `parameters`, with `properties` and `required`.
        call: the decoded call.
        gold: {function: {parameter: [acceptable values]}}.
        language: "python", "java" or "javascript".

    Returns:
        The verdict; the first thing that is wrong names it.

    Raises:
        UsageError: no such language.
    """
    if language not in TYPES:
        raise unknown_name("language", language, TYPES)
    (options,) = gold.values()
    if call.name != schema["name"]:
        return CallVerdict(False, "wrong_function")
    given = call.arguments
    properties = schema["parameters"]["properties"]
    for name in schema["parameters"].get("required", ()):
        if name not in given:
            return CallVerdict(False, "missing_required", name)
    for name, value in given.items():
        if name not in properties or name not in options:
            return CallVerdict(False, "unexpected_parameter", name)
        code = _check_value(value, properties[name], options[name], language)
        if code is not None:
            return CallVerdict(False, code, name)
    for name, acceptable in options.items():
        if name not in given and "" not in acceptable:
            return CallVerdict(False, "missing_parameter", name)
    return RIGHT


def _check_value(value: Any, declared: Mapping[str, Any], options: Sequence[Any], language: str) -> str | None:
    """Say what is wrong with a value, or None."""
    kind, types = declared.get("type"), TYPES[language]
    element = declared.get("items", {}).get("type") if kind in _WITH_ELEMENTS else None
    if kind not in types or (element is not None and element not in types):
        return "unknown_type"
    expected, inner = types[kind], None if element is None else types[element]
    if language != "python":
        if type(value) is not str:
            return "wrong_type"
        value = CONVERTERS[language](value, kind, element)
    elif kind == "tuple" and type(value) is tuple:
        value = list(value)
    elif kind == "float" and type(value) is int:
        value = _as_float(value)
    known = _known_type(options)
    is_variable = known is not None and known is not expected
    if type(value) is not expected:
        if type(value) is not known:
            return "wrong_type"
        is_variable = True
    elif inner is not None and not _elements_fit(value, options, inner):
        return "wrong_element_type"
    return None if _equals_an_option(value, options, expected, inner, is_variable) else "wrong_value"


def _as_float(number: int) -> float | int:
    try:
        return float(number)
    except OverflowError:
        return number


def _known_type(options: Sequence[Any]) -> type | None:
    """Return the type of the first acceptable value that is not ""."""
    for option in options:
        if option != "":
            return type(option)
    return None


def _elements_fit(value: Any, options: Sequence[Any], inner: type) -> bool:
    for option in options:
        if type(option) is not list:
            return True
        known = _known_type(option)
        if all(type(one) is inner or type(one) is known for one in value):
            return True
    return False


def _equals_an_option(
    value: Any, options: Sequence[Any], expected: type, inner: type | None, is_variable: bool
) -> bool:
    if is_variable or expected not in (dict, list, str):
        return value in options
    if expected is not dict and inner is not dict and type(options) is list and value in options:
        return True
    if expected is str:
        loose = normalise_text(value)
        return any(type(option) is str and normalise_text(option) == loose for option in options)
    if expected is dict:
        return _equals_dict(value, options)
    if inner is dict:
        return any(_is_as_long(o, value) and all(_equals_dict(v, [d]) for v, d in zip(value, o)) for o in options)
    loose_list = [_loose(one) for one in value]
    return any(isinstance(o, list | tuple | str) and [_loose(one) for one in o] == loose_list for o in options)


def _is_as_long(option: Any, value: Sequence[Any]) -> bool:
    return isinstance(option, list | tuple | str) and len(option) == len(value)


def _equals_dict(value: Any, options: Sequence[Any]) -> bool:
    """Return whether a dict is one of the options: known keys, acceptable values, only optional keys left out."""
    if not isinstance(value, dict):
        return False
    return any(_is_dict_option(value, option) for option in options if option != "")


def _is_dict_option(value: dict[Any, Any], option: Any) -> bool:
    if not isinstance(option, Mapping):
        return False
    for key, given in value.items():
        acceptable = option.get(key)
        if not isinstance(acceptable, list | tuple | str) or _loose(given) not in [_loose(one) for one in acceptable]:
            return False
    return all(
        key in value or (isinstance(acceptable, list | tuple | str | dict) and "" in acceptable)
        for key, acceptable in option.items()
    )


def call_mode(category: str) -> str:
    """Return how the calls of a category are compared: "parallel", "multiple" or "simple"."""
    return "parallel" if "parallel" in category else "multiple" if "multiple" in category else "simple"


def check_calls(
    schemas: Sequence[Schema],
    calls: Sequence[Call],
    golds: Sequence[Gold],
    mode: str = "parallel",
    language: str = "python",
) -> CallVerdict:
    """Judge the calls of an answer.

    Args:
        schemas: the functions that were offered.
        calls: the decoded calls.
        golds: the gold calls.
        mode: "simple" (one call, of the first function), "multiple" (one call, of the function that gold names) or
            "parallel" (as many as gold has, in any order; each gold call takes the first call left that matches).
        language: "python", "java" or "javascript".

    Returns:
        The verdict; its code is that of the first gold call without a match.
    """
    if len(calls) != (1 if mode == "simple" else len(golds)):
        return CallVerdict(False, "wrong_count")
    if mode == "simple":
        return check_call(schemas[0], calls[0], golds[0], language)
    left = list(calls)
    for gold in golds:
        (name,) = gold
        schema = next((one for one in schemas if one["name"] == name), None)
        if schema is None:
            return CallVerdict(False, "unknown_function", name)
        verdict = _take(schema, left, gold, language)
        if not verdict.ok:
            return verdict
    return RIGHT


def _take(schema: Schema, left: list[Call], gold: Gold, language: str) -> CallVerdict:
    """Remove the first call that matches a gold call; the verdict of the nearest one otherwise."""
    nearest = CallVerdict(False, "wrong_function")
    for k, call in enumerate(left):
        verdict = check_call(schema, call, gold, language)
        if verdict.ok:
            del left[k]
            return verdict
        if verdict.code != "wrong_function":
            nearest = verdict
    return nearest


def count_matches(schemas: Sequence[Schema], calls: Sequence[Call], golds: Sequence[Gold], language: str) -> int:
    """Count the gold calls that find a match of their own, each the first call left that is right."""
    left, by_name = list(calls), {schema["name"]: schema for schema in schemas}
    return sum(_take(by_name[name], left, gold, language).ok for gold in golds for name in gold if name in by_name)
