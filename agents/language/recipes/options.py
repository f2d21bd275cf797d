"""The numbers of a row by their names: `recipe_kwargs`; what a name means is read from the signatures of the parts."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from polyathlon.agents.parts.option_types import check_option_values
from polyathlon.agents.parts.wiring import Part, find_part, reads
from polyathlon.envs.errors import UsageError, unknown_name

from .records import Recipe

OWN_WORDS = ("aggregation", "n_epochs", "minibatches", "max_grad_norm", "denominator", "old_logp")


@dataclass(frozen=True)
class Slot:
    """A place of a row where a part stands.

    Attributes:
        name: "loss", "rewards.0", "penalties.kl", "models.process".
        part: what stands there.
        put: the row with another part there.
    """

    name: str
    part: Part
    put: Callable[[Recipe, Part], Recipe]


def slots(row: Recipe) -> list[Slot]:
    """Return the places of a row at which parts stand, in the order of an iteration."""
    found: list[Slot] = []
    for name in ("collect", "rewards", "keep", "advantage", "weights", "loss"):
        found += _slots_of(row, name)
    for i, penalty in enumerate(row.penalties):
        found.append(Slot(f"penalties.{penalty.name}", penalty.term, _put_in("penalties", i, "term")))
    for i, model in enumerate(row.models):
        if model.loss is not None:
            found.append(Slot(f"models.{model.role}", model.loss, _put_in("models", i, "loss")))
    return found + _slots_of(row, "after")


def inner_slots(row: Recipe) -> list[Slot]:
    """Return the places of parts that are options of other parts, "advantage.advantage" or "collect.prompts"."""
    found: list[Slot] = []
    for slot in slots(row):
        for option, value in slot.part.options:
            if isinstance(value, Part):
                found.append(Slot(f"{slot.name}.{option}", value, _put_inside(slot, option)))
    return found


def _put_inside(slot: Slot, option: str) -> Callable[[Recipe, Part], Recipe]:
    def put(row: Recipe, new: Part) -> Recipe:
        return slot.put(row, _replace(slot.part, options=tuple((dict(slot.part.options) | {option: new}).items())))

    return put


def _slots_of(row: Recipe, name: str) -> list[Slot]:
    held = getattr(row, name)
    if isinstance(held, tuple):
        return [Slot(f"{name}.{i}", item, _put_at(name, i)) for i, item in enumerate(held)]
    return [] if held is None else [Slot(name, held, lambda row, new: _replace(row, **{name: new}))]


def _put_at(name: str, index: int) -> Callable[[Recipe, Part], Recipe]:
    def put(row: Recipe, new: Part) -> Recipe:
        held = getattr(row, name)
        return _replace(row, **{name: (*held[:index], new, *held[index + 1 :])})

    return put


def _put_in(name: str, index: int, inner: str) -> Callable[[Recipe, Part], Recipe]:
    def put(row: Recipe, new: Part) -> Recipe:
        held = getattr(row, name)
        changed: Any = _replace(held[index], **{inner: new})
        return _replace(row, **{name: (*held[:index], changed, *held[index + 1 :])})

    return put


def _replace(record: Any, **words: Any) -> Any:
    return dataclasses.replace(record, **words)


def option_names(slot: Part) -> tuple[str, ...]:
    """Return the options that a part takes: arguments after `*`, or those of a class's `__init__`."""
    function = find_part(slot.path)
    if isinstance(function, type):
        return tuple(inspect.signature(function).parameters)
    return reads(function).options


def option_at(row: Recipe, name: str, default: object = None) -> object:
    """Return the value that a row gives to an option of its collector, or the option's own default."""
    given = dict(row.collect.options)
    if name in given:
        return given[name]
    parameters = inspect.signature(find_part(row.collect.path)).parameters
    return parameters[name].default if name in parameters else default


def change_row(row: Recipe, words: Mapping[str, object]) -> Recipe:
    """Return a row with other numbers.

    Args:
        row: the row.
        words: values by name. A name is that of an option which one part alone takes (`clip_high`), of a part inside another one too
            where that has none of this name, "slot.option" (`loss.clip_high`, `rewards.0.overlong_buffer`, `penalties.kl.kind`), NAME_coef or NAME_option of the penalty NAME
            (`kl_coef`, `kl_kind`), or a word of the row (`n_epochs`).

    Raises:
        UsageError: nothing takes a name, or several parts do; the value is not one that it takes.
    """
    for name, value in words.items():
        row = _changed(row, name, _as_tuples(value))
    return row


def _as_tuples(value: object) -> object:
    """Turn what JSON, YAML and the command line have for tuples and pairs into these."""
    if isinstance(value, Mapping):
        return tuple((key, _as_tuples(inner)) for key, inner in value.items())
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value


def _changed(row: Recipe, name: str, value: object) -> Recipe:
    if name in OWN_WORDS:
        return _replace(row, **{name: value})
    for i, penalty in enumerate(row.penalties):
        if name in (f"{penalty.name}_coef", f"penalties.{penalty.name}.coefficient"):
            changed = _replace(penalty, coefficient=value)
            return _replace(row, penalties=(*row.penalties[:i], changed, *row.penalties[i + 1 :]))
    for i, model in enumerate(row.models):
        if model.loss is not None and name in (f"{model.role}_learning_rate", f"models.{model.role}.learning_rate"):
            moved = _replace(model, learning_rate=value)
            return _replace(row, models=(*row.models[:i], moved, *row.models[i + 1 :]))
    outer, inner = (
        [(slot, option) for slot in places for option in option_names(slot.part) if name in _names(slot, option)]
        for places in (slots(row), inner_slots(row))
    )
    exact = [(slot, option) for slot, option in (*outer, *inner) if name == f"{slot.name}.{option}"]
    chosen = exact or outer or inner
    if not chosen:
        raise unknown_name(f"word of the recipe {row.name!r}", name, known_words(row))
    if len(chosen) > 1:
        paths = " or ".join(f"{slot.name}.{option}" for slot, option in chosen)
        raise UsageError(f"several parts of the recipe {row.name!r} take {name!r}: write {paths}")
    slot, option = chosen[0]
    _check(slot, option, value)
    options = dict(slot.part.options) | {option: value}
    changed = slot.put(row, _replace(slot.part, options=tuple(options.items())))
    return _in_step(changed, option_at(row, "refresh"), value) if option == "refresh" else changed


def _in_step(row: Recipe, before: object, now: object) -> Recipe:
    """Let the copies that follow the policy once an iteration of the collector go with its length."""
    models = [
        _replace(m, follows=_replace(m.follows, every=now))
        if m.follows.kind == "copy" and m.follows.every == before
        else m
        for m in row.models
    ]
    return _replace(row, models=tuple(models))


def _names(slot: Slot, option: str) -> tuple[str, ...]:
    names = (option, f"{slot.name}.{option}")
    place, _, penalty = slot.name.partition(".")
    return (*names, f"{penalty}_{option}") if place == "penalties" else names


def _check(slot: Slot, option: str, value: object) -> None:
    check_option_values(find_part(slot.part.path), {option: value}, f"{slot.name} ({slot.part.path})")


def known_words(row: Recipe) -> list[str]:
    """Return the shortest name of each number of a row."""
    short: dict[str, list[str]] = {}
    for slot in slots(row):
        for option in option_names(slot.part):
            short.setdefault(option, []).append(f"{slot.name}.{option}")
    inner = [(slot.name, option) for slot in inner_slots(row) for option in option_names(slot.part)]
    for place, option in inner:
        short.setdefault(option if option not in short else f"{place}.{option}", [f"{place}.{option}"])
    words = [option if len(paths) == 1 else path for option, paths in short.items() for path in paths]
    rates = [f"{model.role}_learning_rate" for model in row.models if model.loss is not None]
    return [*OWN_WORDS, *(f"{p.name}_coef" for p in row.penalties), *rates, *words]
