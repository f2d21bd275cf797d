"""What a policy reads: functions, rules and results in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .checking import Schema

STYLES = ("signatures", "json")
NEW_FUNCTIONS = "There are more functions now:"
_RULE = "Answer with calls only, as [name(parameter=value, ...)]. If no function fits, say so in words."
_TURNS = (
    "Answer with calls, as [name(parameter=value, ...)], and read their results. "
    "When the request is done, say so in words without calls."
)
_HINTS = {
    "java": " Values are Java 8 source; end the call with a semicolon.",
    "javascript": " Values are JavaScript source.",
    "python": "",
}


def instructions(schemas: Sequence[Schema], language: str, in_turns: bool, style: str = "signatures") -> str:
    """Write the system message: the rule of the answer and the functions.

    Args:
        schemas: the functions on offer.
        language: language of the values.
        in_turns: results come back and several messages may follow.
        style: "signatures", a line for each function and each described parameter, or "json", the schemas as they are.
    """
    rule = (_TURNS if in_turns else _RULE) + _HINTS[language]
    return f"{rule}\n{describe_functions(schemas, style)}"


def describe_functions(schemas: Sequence[Schema], style: str = "signatures") -> str:
    """Write functions, as lines of signatures or as JSON."""
    if style == "json":
        return json.dumps(list(schemas))
    return "\n".join(_signature(schema) for schema in schemas)


def _signature(schema: Schema) -> str:
    parameters = schema["parameters"]
    required, properties = parameters.get("required", ()), parameters["properties"]
    inside = ", ".join(f"{p}{'' if p in required else '?'}: {_kind(properties[p])}" for p in properties)
    lines = [f"{schema['name']}({inside}) {schema.get('description', '')}".rstrip()]
    lines += [f"  {p}: {d['description']}" for p, d in properties.items() if d.get("description")]
    return "\n".join(lines)


def _kind(declared: Mapping[str, Any]) -> str:
    kind = str(declared.get("type", "any"))
    if "enum" in declared:
        return "|".join(json.dumps(value) for value in declared["enum"])
    if "items" in declared:
        kind += f"[{_kind(declared['items'])}]"
    if declared.get("properties"):
        kind += "{" + ", ".join(f"{key}: {_kind(inner)}" for key, inner in declared["properties"].items()) + "}"
    return kind


def spoken(messages: Sequence[Mapping[str, str]]) -> str:
    """Return what the messages of a turn say, one after the other."""
    return "\n".join(message["content"] for message in messages)
