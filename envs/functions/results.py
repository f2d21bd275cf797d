"""What a tool gives back, as the text that a policy reads."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import threading
from collections.abc import Awaitable
from typing import Any

_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")
_PAIRS: dict[type, str] = {list: "[]", tuple: "()", set: "{}"}
_loops: dict[int, asyncio.AbstractEventLoop] = {}
_starting = threading.Lock()


class NoPlainResult(TypeError):
    """A tool gave back something whose text says where it lies in memory, not what it is."""


def result_text(value: Any) -> str:
    """Return the text of a result: a text as it is, a dict as JSON where it can be, anything else by `str`.

    Sets are written in the order of their members' texts, so that the text is the same in every process.

    Raises:
        NoPlainResult: it is, or holds, a function, a generator, or an object without a text of its own.
    """
    if isinstance(value, str):
        return value
    if type(value) is dict:
        try:
            return json.dumps(value)
        except (TypeError, ValueError, RecursionError):
            return _written(value)
    if type(value) in _PAIRS or type(value) is frozenset:
        return _written(value)
    return _plain(value, str(value))


def _written(value: Any) -> str:
    """Return a value as `repr` writes it, sets sorted."""
    kind = type(value)
    if kind is dict:
        return "{" + ", ".join(f"{_written(key)}: {_written(one)}" for key, one in value.items()) + "}"
    if kind is frozenset:
        return f"frozenset({_written(set(value)) if value else ''})"
    if kind not in _PAIRS or (kind is set and not value):
        return _plain(value, repr(value))
    parts = [_written(one) for one in value]
    inside = ", ".join(sorted(parts) if kind is set else parts) + ("," if kind is tuple and len(parts) == 1 else "")
    return _PAIRS[kind][0] + inside + _PAIRS[kind][1]


def _plain(value: Any, text: str) -> str:
    if not isinstance(value, str | bytes) and _ADDRESS.search(text):
        raise NoPlainResult(
            f"a result of type {type(value).__name__} is no plain value; "
            "a tool gives back texts, numbers, lists, dicts, or objects whose class defines __str__"
        )
    return text


def awaited(value: Any) -> Any:
    """Return a result, and of an async tool what it comes to; such tools share one event loop in a thread of its own."""
    if not inspect.isawaitable(value):
        return value
    result, error = asyncio.run_coroutine_threadsafe(_outcome(value), _loop()).result()
    if error is not None:
        raise error
    return result


async def _outcome(value: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    # an error such as SystemExit must not end the loop
    try:
        return await value, None
    except BaseException as error:
        return None, error


def _loop() -> asyncio.AbstractEventLoop:
    """Return this process's event loop: threads do not go along when a process is forked."""
    with _starting:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="polyathlon-tools", daemon=True).start()
    return loop


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: globals().update(_starting=threading.Lock()))
