"""Search spaces of hyper-parameters: one YAML file an agent, beside the tuned values."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from polyathlon.envs.errors import UsageError, constructor_keywords, unknown_name

from .adaptation import resolve_agent
from .comparison_runs import acts_in_words
from .yaml_files import read_yaml

FOLDER = Path(__file__).parent / "data" / "search_spaces"


@dataclass(frozen=True)
class Word:
    """One hyper-parameter of a search space.

    Attributes:
        name: keyword of the agent; a dot enters a dict.
        choices: what it is chosen from; empty for a range.
        low, high: ends of a range, both within.
        log: whether the range is searched on a logarithmic scale.
        whole: whether the range holds whole numbers alone.
    """

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def draw(self, trial: Any) -> Any:
        """Ask a trial of Optuna for a value; lists and dicts are known to it as JSON."""
        if self.choices:
            plain = all(isinstance(choice, str | int | float | bool | None) for choice in self.choices)
            if plain:
                return trial.suggest_categorical(self.name, list(self.choices))
            return json.loads(trial.suggest_categorical(self.name, [json.dumps(choice) for choice in self.choices]))
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


def within(words: Sequence[Word], length: int) -> tuple[Word, ...]:
    """Return a space for runs of `length` steps: no choice of `learning_starts` after which nothing would be learnt.

    A choice must lie in the first half of a run. Where none does, the word is not searched.
    """
    kept = []
    for word in words:
        if word.name == "learning_starts" and word.choices:
            early = tuple(choice for choice in word.choices if 2 * choice <= length)
            kept += [replace(word, choices=early)] if early else []
        else:
            kept.append(word)
    return tuple(kept)


def read_space(agent: str, space: str | Path | dict[str, Any] | None = None) -> list[Word]:
    """Read the search space of an agent.

    Args:
        agent: name of an agent or a recipe.
        space: a YAML file, or what it holds; None is the one that comes with this package.

    Raises:
        UsageError: there is none, it names a keyword that the agent does not take, or a range means nothing.
    """
    name = str(space) if isinstance(space, str | Path) else f"the search space of {agent}"
    if isinstance(space, dict):
        table: Any = space
    else:
        path = Path(space) if space is not None else FOLDER / f"{'language' if acts_in_words(agent) else agent}.yml"
        if space is None and not path.exists():
            raise UsageError(
                f"no search space comes with {agent}: write one, and give it (--space FILE); see {FOLDER / 'sac.yml'}"
            )
        table = read_yaml(path)
    if not isinstance(table, dict) or not table:
        raise UsageError(f"{name} must map keywords of {agent} to a list of choices or to {{low, high}}")
    known = constructor_keywords(resolve_agent(agent)[0])
    for word in table:
        if str(word).partition(".")[0] not in known:
            raise UsageError(f"{name}: {unknown_name(f'keyword of {agent}', str(word), known)}")
    return [_word(str(word), value, name) for word, value in table.items()]


def _word(word: str, value: Any, name: str) -> Word:
    if isinstance(value, list) and value:
        return Word(word, tuple(value))
    if not isinstance(value, dict) or not {"low", "high"} <= set(value) <= {"low", "high", "log"}:
        raise UsageError(f"{name}: {word} must be a list of choices or {{low: A, high: B, log: true}}, got {value!r}")
    low, high, log = value["low"], value["high"], value.get("log", False)
    numbers = all(
        isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end) for end in (low, high)
    )
    if not numbers or not low < high or (log and low <= 0) or not isinstance(log, bool):
        raise UsageError(
            f"{name}: the range of {word} must have low < high, both finite{' and above 0' if log else ''}, got {value!r}"
        )
    return Word(word, (), float(low), float(high), log, isinstance(low, int) and isinstance(high, int))


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Return values under names with dots as nested dicts."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        place = found
        *parents, last = name.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return found


def merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return the values of both, those of `over` first, dicts word by word."""
    both = {key for key in over if isinstance(over[key], dict) and isinstance(under.get(key), dict)}
    return {**under, **over, **{key: merged(under[key], over[key]) for key in both}}
