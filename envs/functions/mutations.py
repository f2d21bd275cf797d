"""Answers near a right one: the mistakes that policies make, and whatever else a checker must judge exactly."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .calls import Call, write_calls
from .checking import Gold, Schema
from .entries import Entry
from .golds import gold_calls

_WRONG_VALUE = "something else"
Mutation = Callable[[list[Call], Sequence[Schema], random.Random], list[Call]]


def _one(calls: list[Call], rng: random.Random, change: Callable[[Call], Call]) -> list[Call]:
    k = rng.randrange(len(calls))
    return [change(call) if i == k else call for i, call in enumerate(calls)]


def _wrong_name(calls: list[Call], schemas: Sequence[Schema], rng: random.Random) -> list[Call]:
    def change(call: Call) -> Call:
        others = [schema["name"] for schema in schemas if schema["name"] != call.name]
        name = rng.choice(others) if others and rng.random() < 0.7 else call.name.rpartition(".")[2] + "_v2"
        return Call(name, call.arguments)

    return _one(calls, rng, change)


def _other_function(calls: list[Call], schemas: Sequence[Schema], rng: random.Random) -> list[Call]:
    """Call another function with what its parameters share with the right one, and values for the rest."""

    def change(call: Call) -> Call:
        others = [schema for schema in schemas if schema["name"] != call.name]
        if not others:
            return Call(call.name + "_v2", call.arguments)
        schema = rng.choice(others)
        values = list(call.arguments.values())
        parameters = schema["parameters"]
        wanted = list(parameters.get("required", ())) or list(parameters["properties"])[:1]
        return Call(schema["name"], {p: call.arguments.get(p, rng.choice(values) if values else 1) for p in wanted})

    return _one(calls, rng, change)


def _extra_parameter(calls: list[Call], schemas: Sequence[Schema], rng: random.Random) -> list[Call]:
    return _one(calls, rng, lambda call: Call(call.name, {**call.arguments, "option": rng.choice([True, 1, "yes"])}))


def _missing_parameter(calls: list[Call], schemas: Sequence[Schema], rng: random.Random) -> list[Call]:
    def change(call: Call) -> Call:
        kept = dict(call.arguments)
        if kept:
            del kept[rng.choice(list(kept))]
        return Call(call.name, kept)

    return _one(calls, rng, change)


def _changed_value(calls: list[Call], schemas: Sequence[Schema], rng: random.Random) -> list[Call]:
    def change(call: Call) -> Call:
        if not call.arguments:
            return Call(call.name, {"option": 1})
        name = rng.choice(list(call.arguments))
        return Call(call.name, {**call.arguments, name: another_value(call.arguments[name], rng)})

    return _one(calls, rng, change)


def _swapped_values(calls: list[Call], schemas: Sequence[Schema], rng: random.Random) -> list[Call]:
    def change(call: Call) -> Call:
        names = list(call.arguments)
        if len(names) < 2:
            return Call(call.name, {name: another_value(value, rng) for name, value in call.arguments.items()})
        a, b = rng.sample(names, 2)
        return Call(call.name, {**call.arguments, a: call.arguments[b], b: call.arguments[a]})

    return _one(calls, rng, change)


def _duplicate(calls: list[Call], schemas: Sequence[Schema], rng: random.Random) -> list[Call]:
    return [*calls, rng.choice(calls)]


def _dropped(calls: list[Call], schemas: Sequence[Schema], rng: random.Random) -> list[Call]:
    k = rng.randrange(len(calls))
    return calls[:k] + calls[k + 1 :]


def another_value(value: Any, rng: random.Random) -> Any:
    """Return a plausible value of the same type that differs."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + rng.choice([-2, -1, 1, 2, 10])
    if isinstance(value, float):
        return value + rng.choice([-1.0, -0.5, 0.5, 1.0])
    if isinstance(value, str):
        return value[::-1] if value[::-1] != value else value + " " + _WRONG_VALUE
    if isinstance(value, list | tuple):
        kept = list(value)[:-1] if len(value) > 1 else [*value, _WRONG_VALUE]
        return type(value)(kept)
    if isinstance(value, dict):
        return {key: another_value(one, rng) for key, one in value.items()} or {"option": 1}
    return _WRONG_VALUE


# what a policy gets wrong; each makes a wrong answer in most cases, not in all
MISTAKES: dict[str, Mutation] = {
    "other_function": _other_function,
    "wrong_name": _wrong_name,
    "changed_value": _changed_value,
    "swapped_values": _swapped_values,
    "missing_parameter": _missing_parameter,
    "extra_parameter": _extra_parameter,
    "duplicate": _duplicate,
    "dropped": _dropped,
}


def _other_options(golds: Sequence[Gold], rng: random.Random) -> list[Gold]:
    """Return the gold calls with the acceptable values in another order, some optional parameters left out."""
    found: list[Gold] = []
    for gold in golds:
        ((name, options),) = gold.items()
        kept = {}
        for parameter, acceptable in options.items():
            if "" in acceptable and rng.random() < 0.4:
                continue
            kept[parameter] = rng.sample(list(acceptable), len(acceptable))
        found.append({name: kept})
    return found


def _retyped(value: Any, rng: random.Random) -> Any:
    """Return a value of another type that looks alike."""
    if isinstance(value, bool):
        return rng.choice([int(value), str(value), str(value).lower(), not value])
    if isinstance(value, int):
        return rng.choice([str(value), float(value), bool(value), [value], -value, None, value + 1])
    if isinstance(value, float):
        return rng.choice([str(value), int(value), [value], -value, True])
    if isinstance(value, str):
        return rng.choice(
            [[value], value.upper(), value + ".", f" {value}", value.replace(" ", "-"), "", value[:-1], 1]
        )
    if isinstance(value, list | tuple):
        inside = [_retyped(one, rng) if rng.random() < 0.5 else one for one in value]
        return rng.choice([tuple(value), list(value), inside, list(value)[::-1], [], [value], str(value)])
    if isinstance(value, dict):
        return rng.choice([_changed_dict(value, rng), [value], {}, str(value), {**value, "option": 1}])
    return value


def _changed_dict(value: Mapping[Any, Any], rng: random.Random) -> dict[Any, Any]:
    changed = dict(value)
    if changed:
        key = rng.choice(list(changed))
        if rng.random() < 0.3:
            del changed[key]
        else:
            changed[key] = rng.choice([_retyped(changed[key], rng), [changed[key]], another_value(changed[key], rng)])
    return changed


def _source_retyped(text: str, rng: random.Random) -> str:
    """Return source text that was slightly changed."""
    choices = [
        f'"{text}"', text.strip("\"'"), text + "L", text + "f", text + "n", text + ".0", "-" + text, text.upper(), text + " ",
        text.replace(",", ", ,"), text.replace("{", "{{").replace("}", "}}"), text.replace("true", "false"), f"[{text}]",
        f"new Object[]{{{text}}}", f"new ArrayList<String>(Arrays.asList({text}))", "{}", "null", text[:-1], f"{{a: {text}, b: [1, 2]}}",
    ]  # fmt: skip
    return rng.choice(choices)


def _near(calls: list[Call], entry: Entry, rng: random.Random) -> list[Call]:
    """Return the calls with one value retyped, or the parameters of one shuffled."""
    retype = _retyped if entry.language == "python" else _source_retyped

    def change(call: Call) -> Call:
        names = list(call.arguments)
        if not names or rng.random() < 0.2:
            return Call(call.name, {name: call.arguments[name] for name in rng.sample(names, len(names))})
        name = rng.choice(names)
        return Call(call.name, {**call.arguments, name: retype(call.arguments[name], rng)})

    changed = _one(calls, rng, change)
    return rng.sample(changed, len(changed)) if rng.random() < 0.3 else changed


_TEXTS: list[Callable[[str, random.Random], str]] = [
    lambda text, rng: text,
    lambda text, rng: text[1:-1],
    lambda text, rng: f"```{text}```",
    lambda text, rng: f"```python\n{text}\n```",
    lambda text, rng: f"\n {text} \n",
    lambda text, rng: text.replace("True", "true").replace("'", '"'),
    lambda text, rng: text.replace("=", "=+", 1),
    lambda text, rng: text.replace("=", "=-", 1),
    lambda text, rng: text.replace("=", "=2 * 3 + ", 1),
    lambda text, rng: text.replace(")", ", 5)", 1) if rng.random() < 0.3 else text.replace("(", "(7, ", 1),
    lambda text, rng: text.replace("(", "(**{}, ", 1) if rng.random() < 0.2 else text.replace("=", "=dict(a=1), b=", 1),
    lambda text, rng: text.replace("=", "=f(1)[0], b=", 1),
    lambda text, rng: f"Sure: {text}" if rng.random() < 0.5 else f"{text} is the call",
    lambda text, rng: (lambda i: text[:i] + text[i + 1 :])(rng.randrange(len(text) or 1)),
    lambda text, rng: (lambda i: text[:i] + rng.choice("()[]{}=,.'\"-+ x1\\") + text[i:])(
        rng.randrange(len(text) or 1)
    ),
    lambda text, rng: rng.choice(["[]", "", "no", "[f]", "f", "[[]]", "f()", "[f(), f()]", "{}", "None"]),
    lambda text, rng: f"'{text}'" if rng.random() < 0.3 else text.replace(", ", ",\n   "),
]


def mutated_answer(entry: Entry, rng: random.Random) -> str:
    """Return an answer near the gold one: right, wrong in one respect, or not readable at all.

    Args:
        entry: a problem that is answered once.
        rng: source of the changes; the same one gives the same answer in every version of Python.
    """
    golds = entry.gold or [
        {one["name"]: {name: [1] for name in one["parameters"]["properties"]}} for one in entry.functions[:1]
    ]
    calls = gold_calls(_other_options(golds, rng), entry.functions, entry.language, rng.random() < 0.3)
    kind = rng.random() if calls else 1.0
    if kind < 0.3:
        calls = MISTAKES[rng.choice(list(MISTAKES))](calls, entry.functions, rng)
    elif kind < 0.7:
        calls = _near(calls, entry, rng)
    text = write_calls(calls, entry.language)
    return rng.choice(_TEXTS)(text, rng) if rng.random() < 0.35 else text
