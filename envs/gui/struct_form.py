"""Actions on a page as records of numbers and texts, for scripts; agents take the forms of `web_forms`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from polyathlon.envs.errors import UsageError, is_integer, unknown_name
from polyathlon.envs.language import Utterance

from .calls import CALLS, LARGEST, LONGEST_TEXT, NUMBER, REF, Call, read_call

NAMES = tuple(CALLS)
_NUMBERS = ("x", "y", "x2", "y2")


def fields_of(name: str) -> list[str]:
    """Return the fields that hold the arguments of a call, in order: `ref`, `text`, and `x`, `y`, `x2`, `y2` for numbers."""
    numbers = iter(_NUMBERS)
    return [next(numbers) if kind == NUMBER else "ref" if kind == REF else "text" for kind in CALLS[name]]


def struct_space() -> spaces.Dict:
    """Return the space of records: `name`, the number of the call in `CALLS`; `ref`; `x`, `y`, `x2`, `y2`; `text`."""
    parts: dict[str, Any] = {"name": spaces.Discrete(len(NAMES)), "ref": spaces.Box(0, LARGEST, (), np.int64)}
    parts |= {name: spaces.Box(-LARGEST, LARGEST, (), np.float64) for name in _NUMBERS}
    return spaces.Dict({**parts, "text": Utterance(4 * LONGEST_TEXT)})


def text_of(record: Mapping[str, Any]) -> str:
    """Return the call of a record in words; fields that the call does not take are not read.

    Args:
        record: `name` as a number or a word of `CALLS`, and the fields of `fields_of`.

    Raises:
        UsageError: it is no record, its name is unknown, or a field is missing or of another kind.
    """
    if not isinstance(record, Mapping) or "name" not in record:
        raise UsageError(f"an action is a record with 'name' and the fields of that call, got {record!r:.80}")
    given = record["name"]
    if is_integer(given, 0) and int(given) < len(NAMES):
        name = NAMES[int(given)]
    elif isinstance(given, str) and given in CALLS:
        name = given
    else:
        raise unknown_name("call of a page", str(given), NAMES)
    arguments = []
    for field in fields_of(name):
        if field not in record:
            raise UsageError(f"{name!r} takes {', '.join(fields_of(name))}; {field!r} is missing")
        arguments.append(_plain(field, record[field]))
    return str(Call(name, tuple(arguments)))


def struct_of(text: str) -> dict[str, Any]:
    """Return the record of a call in words; fields that it does not take are 0 or empty.

    Raises:
        CallError: the text is no call.
    """
    call = read_call(text)
    record: dict[str, Any] = {"name": NAMES.index(call.name), "ref": np.array(0), "text": ""}
    record |= {name: np.array(0.0) for name in _NUMBERS}
    for field, value in zip(fields_of(call.name), call.arguments):
        record[field] = value if field == "text" else np.array(value, np.int64 if field == "ref" else np.float64)
    return record


def _plain(field: str, value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.ndim == 0:  # as a Box samples it
        value = value.item()
    if field == "text":
        if not isinstance(value, str):
            raise UsageError(f"'text' is a text, got {value!r:.40}")
        return value
    if field == "ref":
        if not is_integer(value, 0):
            raise UsageError(f"'ref' is the whole number of an element, got {value!r:.40}")
        return int(value)
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{field!r} is a number, got {value!r:.40}") from error
    return int(number) if number.is_integer() else number


class StructActions(gym.ActionWrapper[str, Mapping[str, Any], str]):
    """Takes records (`struct_space`) instead of calls in words; what they lead to is the same."""

    def __init__(self, env: gym.Env[str, str]) -> None:
        super().__init__(env)
        self.action_space: Any = struct_space()

    def action(self, action: Mapping[str, Any]) -> str:
        """Return the call in words; see `text_of`."""
        return text_of(action)
