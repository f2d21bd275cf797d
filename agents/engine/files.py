"""Methods in files: what they consist of, with functions named as module:function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from polyathlon.agents.parts.wiring import from_json, function_at, to_json
from polyathlon.envs.errors import UsageError

from .method import Loss, Method


def method_record(method: Method) -> dict[str, Any]:
    """Return the method as JSON has it; `method_of` reads it."""
    return {
        "networks": _path(method.networks),
        "losses": [_loss_record(loss) for loss in method.losses],
        "targets": {name: to_json(target) for name, target in method.targets.items()},
        "noise": {name: to_json(noise) for name, noise in method.noise.items()},
        "constants": list(method.constants),
        "policy": method.policy,
        "twin": None if method.twin is None else _path(method.twin),
    }


def method_of(record: Mapping[str, Any]) -> Method:
    """Make the method that was written.

    Raises:
        UsageError: one of its functions cannot be imported here.
    """
    return Method(
        networks=_function(record["networks"]),
        losses=tuple(_loss(loss) for loss in record["losses"]),
        targets={name: from_json(text) for name, text in record["targets"].items()},
        noise={name: from_json(text) for name, text in record["noise"].items()},
        constants=tuple(record["constants"]),
        policy=record["policy"],
        twin=None if record["twin"] is None else _function(record["twin"]),
    )


def refuse_other_method(record: Mapping[str, Any], method: Method) -> None:
    """Compare the names of a method with those in a file; modules may differ.

    Raises:
        UsageError: a function or a loss has another name.
    """
    theirs, own = _names(record), _names(method_record(method))
    for place in [*theirs, *(p for p in own if p not in theirs)]:
        if theirs.get(place) != own.get(place):
            raise UsageError(
                f"the file's method has {place} = {theirs.get(place)}, the one given as method= has {own.get(place)}: "
                "give the method that the file was trained with"
            )


def _names(record: Mapping[str, Any]) -> dict[str, str | None]:
    found = {f"loss {loss['name']!r}": _last(loss["function"]) for loss in record["losses"]}
    return {**found, "networks": _last(record["networks"]), "twin": record["twin"] and _last(record["twin"])}


def _last(path: str) -> str:
    return path.partition(":")[2]


def _path(function: Callable[..., Any]) -> str:
    """Name a function, or the class of an instance, which only `method=` can give back."""
    named: Any = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def _imported(path: str) -> Callable[..., Any]:
    try:
        return function_at(path)
    except UsageError as error:
        raise UsageError(f"{error}; it is part of the file's method: give it as load(..., method=...)") from error


def _function(path: str) -> Callable[..., Any]:
    found = _imported(path)
    if isinstance(found, type):
        raise UsageError(f"{path!r} was an instance of a class in the file's method: give it as load(..., method=...)")
    return found


def _value_record(value: Any) -> Any:
    return {"function": _path(value)} if callable(value) else to_json(value)


def _value(record: Any) -> Any:
    return _function(record["function"]) if isinstance(record, Mapping) else from_json(record)


def _loss_record(loss: Loss) -> dict[str, Any]:
    optimiser: Any = loss.optimiser
    words = None  # nothing says with which words a class that is no dataclass was made
    if is_dataclass(optimiser):
        words = {f.name: _value_record(getattr(optimiser, f.name)) for f in fields(optimiser)}
    return {
        "name": loss.name,
        "moves": loss.moves if isinstance(loss.moves, str | None) else list(loss.moves),
        "function": _path(loss.function),
        "optimiser": {
            "class": _path(type(optimiser)),
            "words": words,
        },
        "every": loss.every,
        "publishes": list(loss.publishes),
        "options": {name: _value_record(value) for name, value in loss.options.items()},
        "rename": dict(loss.rename),
    }


def _loss(record: Mapping[str, Any]) -> Loss:
    moves, optimiser = record["moves"], record["optimiser"]
    made = _imported(optimiser["class"])
    if optimiser["words"] is None:
        raise UsageError(
            f"the optimiser {optimiser['class']!r} of the file's method is no dataclass, whose words a file could hold: give the method "
            "as load(..., method=...)"
        )
    return Loss(
        moves=tuple(moves) if isinstance(moves, list) else moves,
        function=_function(record["function"]),
        optimiser=made(**{name: _value(value) for name, value in optimiser["words"].items()}),
        every=record["every"],
        publishes=tuple(record["publishes"]),
        options={name: _value(value) for name, value in record["options"].items()},
        rename=dict(record["rename"]),
        name=record["name"],
    )
