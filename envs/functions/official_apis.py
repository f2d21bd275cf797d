"""The eight classes that the leaderboard's multi-turn problems act on, out of the fetched wheel.

A verdict of a multi-turn problem compares states and result texts with those of these classes, so their code is taken as
it is published, from a wheel of a fixed hash. It imports no module but those that it needs, is called through a table of
methods with plain values, and what would take unbounded time or memory is refused first.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import json
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from polyathlon.envs.errors import UsageError, require, unknown_name

from .worlds import TooLarge, World

# class -> (module, file of its function documents)
CLASSES = {
    "GorillaFileSystem": ("gorilla_file_system", "gorilla_file_system.json"),
    "MathAPI": ("math_api", "math_api.json"),
    "MessageAPI": ("message_api", "message_api.json"),
    "TwitterAPI": ("posting_api", "posting_api.json"),
    "TicketAPI": ("ticket_api", "ticket_api.json"),
    "TradingBot": ("trading_bot", "trading_bot.json"),
    "TravelAPI": ("travel_booking", "travel_booking.json"),
    "VehicleControlAPI": ("vehicle_control", "vehicle_control.json"),
}
_ALLOWED = frozenset({"copy", "datetime", "decimal", "math", "mpmath", "random", "typing"})
_SHARED = "long_context"
MAX_ITEMS = 20_000
_MAX_BITS = 1 << 14
_MAX_PRECISION = 1000
# method -> name and place of the number of digits
_PRECISION = {"logarithm": ("precision", 2), "square_root": ("precision", 1), "round_number": ("decimal_places", 1)}


def api_folder(folder: Path) -> Path | None:
    """Return where a folder of problems keeps the source of the classes, or None."""
    return folder / "apis" if (folder / "apis").is_dir() else None


@functools.lru_cache(maxsize=4)
def _modules(folder: Path) -> dict[str, types.ModuleType]:
    found: dict[str, types.ModuleType] = {}

    def restricted(name: str, globals: Any = None, locals: Any = None, names: Any = (), level: int = 0) -> Any:
        if name.rpartition(".")[2] == _SHARED:
            return found[_SHARED]
        if name == "subprocess":  # imported by the file system, and never used
            return types.ModuleType("subprocess")
        if name.split(".")[0] not in _ALLOWED:
            raise ImportError(f"a class of the leaderboard imports {name}, which it is not allowed to")
        return importlib.import_module(name)

    for name in (_SHARED, *(module for module, _ in CLASSES.values())):
        path = folder / f"{name}.py"
        module = types.ModuleType(f"polyathlon_bfcl_{name}")
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": restricted, "open": None, "eval": None}
        exec(compile(path.read_text("utf-8"), str(path), "exec"), module.__dict__)
        # `datetime` imports modules of its own in the name of whoever calls it
        module.__dict__["__builtins__"]["__import__"] = builtins.__import__
        found[name] = module
    return found


def load_class(folder: Path, name: str) -> type:
    """Return a class of the leaderboard.

    Args:
        folder: folder of the classes' source.
        name: one of `CLASSES`.

    Raises:
        UsageError: no such class.
    """
    if name not in CLASSES:
        raise unknown_name("class of the leaderboard", name, CLASSES)
    found: type = getattr(_modules(folder)[CLASSES[name][0]], name)
    return found


@functools.lru_cache(maxsize=64)
def load_documents(folder: Path, name: str) -> tuple[dict[str, Any], ...]:
    """Return the schemas of a class's functions, from a folder of problems."""
    path = folder / "multi_turn_func_doc" / CLASSES[name][1]
    if not path.is_file():
        raise UsageError(f"the function documents of {name} are missing: {path}")
    return tuple(json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip())


class OfficialWorld(World):
    """A world of the leaderboard's classes; precision that one call sets does not outlive it."""

    def _run(self, call: Any) -> Any:
        import decimal

        mpmath = require("mpmath", "functions")
        with decimal.localcontext(), mpmath.workdps(mpmath.mp.dps):
            return super()._run(call)


def make_world(folder: Path, names: list[str], state: Mapping[str, Any], long_context: bool) -> OfficialWorld:
    """Make the world of a problem.

    Args:
        folder: folder of the classes' source.
        names: the classes.
        state: class -> initial state.
        long_context: fill the objects with more data.
    """
    classes = {name: load_class(folder, name) for name in names}
    return OfficialWorld(classes, state, long_context=long_context, limit=within_limits)


def within_limits(owner: Any, method: str, positional: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    """Refuse calls whose cost no length of the text bounds; see `World`.

    Raises:
        TooLarge: a power or precision is too large, or the file system has too many items.
    """

    def argument(name: str, place: int) -> Any:
        return keywords.get(name, positional[place] if len(positional) > place else None)

    if method == "":
        if hasattr(owner, "root") and sum(1 for _ in _items(owner.root)) >= MAX_ITEMS:
            raise TooLarge(f"the file system holds over {MAX_ITEMS} items")
    elif method == "power":
        base, exponent = argument("base", 0), argument("exponent", 1)
        if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * exponent > _MAX_BITS:
            raise TooLarge("the power has too many digits")
    elif method in _PRECISION:
        digits = argument(*_PRECISION[method])
        if isinstance(digits, int | float) and abs(digits) > _MAX_PRECISION:
            raise TooLarge(f"more than {_MAX_PRECISION} digits are asked for")


def _items(root: Any) -> Iterator[Any]:
    """Walk through a file system's items, each as often as a path leads to it, up to `MAX_ITEMS`."""
    stack, count = [root], 0
    while stack and count < MAX_ITEMS:
        item = stack.pop()
        count += 1
        yield item
        stack.extend(getattr(item, "contents", {}).values())
