"""Right calls from gold answers, as values and as source text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .calls import Call
from .checking import TYPES, Gold, Schema

_EXPRESSION = re.compile(r"[A-Za-z_$][\w$.]*$|new |function|\(")
_JAVA_SUFFIX = {"long": "L", "float": "f"}


def gold_calls(
    golds: Sequence[Gold], schemas: Sequence[Schema], language: str = "python", quoted: bool = False
) -> list[Call]:
    """Return calls that answer the gold calls: the first acceptable value of each parameter.

    Args:
        golds: the gold calls.
        schemas: the functions that were offered.
        language: in Java and JavaScript arguments are written as source text.
        quoted: write collections as a text that holds their source, for gold values that are no source of the language.
    """
    by_name = {schema["name"]: schema for schema in schemas}
    return [_gold_call(gold, by_name, language, quoted) for gold in golds]


def _gold_call(gold: Gold, by_name: Mapping[str, Schema], language: str, quoted: bool) -> Call:
    ((name, options),) = gold.items()
    parameters = by_name[name]["parameters"] if name in by_name else {"properties": {}}
    required = parameters.get("required", ())
    arguments = {}
    for parameter, acceptable in options.items():
        declared = parameters["properties"].get(parameter)
        if declared is None or (all(option == "" for option in acceptable) and parameter not in required):
            continue
        value = first_value(acceptable)
        arguments[parameter] = value if language == "python" else write_source(value, declared, language, quoted)
    return Call(name, arguments)


def first_value(acceptable: Any) -> Any:
    """Return the first acceptable value that is not "", with the options inside of dicts resolved."""
    if not isinstance(acceptable, list):
        return acceptable
    return _resolved(next((option for option in acceptable if option != ""), ""))


def _resolved(option: Any) -> Any:
    if isinstance(option, Mapping):
        return {key: first_value(inside) for key, inside in option.items() if inside != [""]}
    return (
        [_resolved(one) if isinstance(one, Mapping) else one for one in option] if isinstance(option, list) else option
    )


def write_source(value: Any, declared: Mapping[str, Any], language: str, quoted: bool = False) -> str:
    """Write a value as Java or JavaScript source of a declared type; a value of another type is an expression.

    Args:
        value: the value.
        declared: the schema of the parameter.
        language: "java" or "javascript".
        quoted: write a collection as a text that holds its source.
    """
    kind = declared["type"]
    if isinstance(value, str) and (kind in ("any", "Any") or TYPES[language].get(kind) is not str):
        return value if _EXPRESSION.match(value) else _quote(value)
    element = declared.get("items", {})
    source = _java(value, kind, element) if language == "java" else _javascript(value, kind, element)
    return _quote(source) if quoted and isinstance(value, list | dict) else source


def _quote(text: str) -> str:
    return f"'{text}'" if '"' in text else f'"{text}"'


def _java(value: Any, kind: str, element: Mapping[str, Any]) -> str:
    inner = {"type": element.get("type", "any")}
    if isinstance(value, list):
        inside = ", ".join(
            one if isinstance(one, str) and kind == "Array" else write_source(one, inner, "java") for one in value
        )
        return f"new Object[]{{{inside}}}" if kind == "Array" else f"new ArrayList<>(Arrays.asList({inside}))"
    if isinstance(value, dict):
        puts = " ".join(f'put("{key}", {_java(one, "", {})});' for key, one in value.items())
        return f"new HashMap<String, Object>() {{{{ {puts} }}}}"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _quote(value) if isinstance(value, str) else f"{value}{_JAVA_SUFFIX.get(kind, '')}"


def _javascript(value: Any, kind: str, element: Mapping[str, Any]) -> str:
    inner = {"type": element.get("type", "any")}
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(write_source(one, inner, "javascript") for one in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_javascript(one, '', {})}" for key, one in value.items()) + "}"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _quote(value) if isinstance(value, str) else f"{value}{'n' if kind == 'Bigint' else ''}"
