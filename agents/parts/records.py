"""The records of which the rows of methods are made, and their form as JSON; imports no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, Protocol, TypeVar, get_args, get_type_hints, runtime_checkable

from polyathlon.envs.errors import UsageError, unknown_name


@dataclass(frozen=True)
class Part:
    """A function, or a class with state, with its options.

    Attributes:
        path: "module:name" in agents/parts ("collectors:name" in agents/language/collectors.py), or "package.module:name".
        options: (name, value) pairs; numbers, strings, truth values, None, schedules, parts and tuples of them.
        rename: (argument, field that it gets) pairs.
    """

    path: str
    options: tuple[tuple[str, object], ...] = ()
    rename: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        split_path(self.path)
        names = [name for name, _ in (*self.options, *self.rename)]
        refuse_twice(names, f"part {self.path!r}")
        for name, value in self.options:
            _check_value(value, f"option {name!r} of part {self.path!r}")


def part(path: str, /, **words: object) -> Part:
    """Write a part in one line: `part("divergences:kl_token", kind="k2", ref_logp="@teacher_logp")`; "@" renames."""
    renamed = tuple((k, v[1:]) for k, v in words.items() if isinstance(v, str) and v.startswith("@"))
    return Part(path, tuple((k, v) for k, v in words.items() if k not in dict(renamed)), renamed)


@dataclass(frozen=True)
class Target:
    """How a copy follows its network.

    Attributes:
        kind: "copy" takes the network over, "ema" moves towards it, "frozen" never moves.
        tau: read by "ema" alone: copy = (1 - tau) copy + tau network; a paper's decay is 1 - tau.
        every: moves at the k-th, 2k-th ... gradient step (engine) or iteration (recipes).
    """

    kind: Literal["copy", "ema", "frozen"] = "copy"
    tau: float = 0.005
    every: int = 1

    def __post_init__(self) -> None:
        _check_kind(Target, self.kind)
        if not 0 < self.tau <= 1:
            raise UsageError(f"tau of a target must lie in (0, 1], got {self.tau}; a paper's decay is 1 - tau")
        check_every(self.every, "a target")


@dataclass(frozen=True)
class Schedule:
    """A number that depends on progress, the finished share of training in [0, 1].

    Attributes:
        kind: "linear", "cosine", "exponential", or "step" (`start` before `until`, then `end`).
        start: value at progress 0.
        end: value from `until` on.
        until: progress at which `end` is reached.
    """

    kind: Literal["linear", "cosine", "exponential", "step"]
    start: float
    end: float = 0.0
    until: float = 1.0

    def __post_init__(self) -> None:
        _check_kind(Schedule, self.kind)
        if not (math.isfinite(self.start) and math.isfinite(self.end)):
            raise UsageError(f"a schedule goes between finite numbers, got start={self.start}, end={self.end}")
        if not 0 < self.until <= 1:
            raise UsageError(f"until of a schedule is a progress in (0, 1], got {self.until}")
        if self.kind == "exponential" and not (self.start > 0 and self.end > 0):
            raise UsageError(
                f"an exponential schedule goes between positive numbers, got start={self.start}, end={self.end}; "
                "give end=, or take kind='linear' to reach 0"
            )

    def at(self, progress: float) -> float:
        """Return the value at a progress in [0, 1].

        With x = min(progress / until, 1): linear start + (end - start) x; cosine end + (start - end) (1 + cos(pi x)) / 2;
        exponential start (end / start)^x; step start where x < 1, else end.
        """
        x = min(max(progress, 0.0) / self.until, 1.0)
        if x >= 1:
            return self.end
        if self.kind == "linear":
            return self.start + (self.end - self.start) * x
        if self.kind == "cosine":
            return self.end + (self.start - self.end) * (1 + math.cos(math.pi * x)) / 2
        if self.kind == "exponential":
            return self.start * (self.end / self.start) ** x
        return self.start


@dataclass(frozen=True)
class Noise:
    """Random numbers that a loss or a part reads; it draws nothing itself.

    Attributes:
        kind: "normal", "uniform" (in [0, 1)), "gumbel", "subset" (`count` different indices), "permutation".
        shape: "batch", "action", "rows", "tokens", the name of a network (its members) or of an option, or a number. The
            last entry of a subset or a permutation is the number of things it chooses among.
        count: of a subset: how many different ones.
    """

    kind: Literal["normal", "uniform", "gumbel", "subset", "permutation"]
    shape: tuple[str | int, ...] = ()
    count: int | None = None

    def __post_init__(self) -> None:
        _check_kind(Noise, self.kind)
        if not isinstance(self.shape, tuple):
            raise UsageError(f"the shape of noise is a tuple such as ('batch', 'action'), got {self.shape!r}")
        for size in self.shape:
            if isinstance(size, bool) or not (isinstance(size, str) or (isinstance(size, int) and size >= 1)):
                raise UsageError(f"a shape of noise holds names and positive numbers, got {size!r}")
        if (self.kind == "subset") != (self.count is not None) or (self.count is not None and self.count < 1):
            raise UsageError(f"noise of kind 'subset', and no other, has a count of at least 1, got {self!r}")
        if self.kind in ("subset", "permutation") and not self.shape:
            raise UsageError(f"noise of kind {self.kind!r} says in its shape among how many it chooses")


@runtime_checkable
class Stateful(Protocol):
    """What is kept in `save` and in a checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        ...


def options_at(options: Mapping[str, object] | Iterable[tuple[str, object]], progress: float) -> dict[str, object]:
    """Return the options with each schedule replaced by its number at a progress in [0, 1]."""
    return {k: v.at(progress) if isinstance(v, Schedule) else v for k, v in dict(options).items()}


def split_path(path: str) -> tuple[str, str]:
    """Split "module:name".

    Raises:
        UsageError: it is not of that form.
    """
    module, colon, name = path.partition(":") if isinstance(path, str) else ("", "", "")
    if not (colon and name.isidentifier() and all(word.isidentifier() for word in module.split("."))):
        raise UsageError(f"a path of a function is 'module:name' or 'package.module:name', got {path!r}")
    return module, name


def refuse_twice(names: Iterable[str], where: str) -> None:
    """Refuse names of which one occurs twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UsageError(f"{name!r} is given twice to {where}; give it once")
        seen.add(name)


def check_every(every: object, where: str) -> None:
    """Refuse an `every` that is not a count of at least 1."""
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise UsageError(f"every= of {where} is a count of at least 1 (the k-th, 2k-th ... turn), got {every!r}")


def _check_kind(record: type, kind: str) -> None:
    """Refuse a kind that the record's annotation does not list."""
    allowed = get_args(get_type_hints(record)["kind"])
    if kind not in allowed:
        raise unknown_name(f"kind of {record.__name__.lower()}", kind, allowed)


def _check_value(value: object, where: str) -> None:
    if isinstance(value, tuple):
        for item in value:
            _check_value(item, where)
    elif isinstance(value, list):
        raise UsageError(f"{where} is a list, which can change; write the tuple {tuple(value)!r}")
    elif value is not None and not isinstance(value, (bool, int, float, str, Schedule, Part)):
        raise UsageError(
            f"{where} is a {type(value).__name__}; rows hold numbers, strings, truth values, None, schedules, parts "
            "and tuples of them; name a function as part('module:name')"
        )


_Record = TypeVar("_Record", bound=type)
_RECORDS: dict[str, type] = {}


def json_record(record: _Record) -> _Record:
    """Let `to_json` and `from_json` write and read a frozen dataclass, under its class name (a class decorator)."""
    if not is_dataclass(record) or _RECORDS.get(record.__name__, record).__qualname__ != record.__qualname__:
        raise UsageError(f"{record!r} is no dataclass, or another record has its name")
    _RECORDS[record.__name__] = record
    return record


for _record in (Part, Target, Schedule, Noise):
    json_record(_record)


def to_json(record: object) -> str:
    """Write a row, or any record or value of one, as JSON.

    A record is an object with its class name under "record"; a tuple is an array (rows hold no lists); numbers that
    are not finite are {"number": "inf"}.

    Raises:
        UsageError: it holds something that rows do not hold.
    """
    return json.dumps(_plain(record), allow_nan=False)


def from_json(text: str) -> Any:
    """Read what `to_json` wrote; the result equals what was written.

    Raises:
        UsageError: a record or a field of one that is not known here, or no JSON.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"not JSON: {error}") from error
    return _rich(data)


def _plain(value: object) -> object:
    if type(value) in _RECORDS.values():
        return {"record": type(value).__name__} | {
            f.name: _plain(getattr(value, f.name))
            for f in fields(value)  # type: ignore[arg-type]
        }
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": repr(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise UsageError(f"a {type(value).__name__} cannot be written in a row: {value!r}")


def _rich(data: Any) -> Any:
    if isinstance(data, list):
        return tuple(_rich(item) for item in data)
    if not isinstance(data, dict):
        return data
    if set(data) == {"number"}:
        return float(data["number"])
    name = data.get("record")
    if name not in _RECORDS:
        raise unknown_name("record", str(name), _RECORDS)
    words = {key: _rich(value) for key, value in data.items() if key != "record"}
    known = [f.name for f in fields(_RECORDS[name])]
    for key in words:
        if key not in known:
            raise unknown_name(f"field of {name}", key, known)
    return _RECORDS[name](**words)
