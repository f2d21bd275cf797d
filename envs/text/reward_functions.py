"""What judges answers to prompts: TRL's reward functions, reward models, judges of pairs, references; all rows at once."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyathlon.envs.data.records import Record
from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.envs.language.judges import DENSITY_RATIO

Components = dict[str, float]


@dataclass(frozen=True)
class Scorer:
    """What gives one number to each of many answers.

    Attributes:
        name: under which it is logged.
        score: (records, answers) -> a number or None each.
        right_from: from which number on an answer counts as right.
        weight: its weight in the sum.
    """

    name: str
    score: Callable[[Sequence[Record], Sequence[str]], Sequence[Any]]
    right_from: float = 1.0
    weight: float = 1.0


def scorers_of(judge: Any, weights: Sequence[float] | None = None) -> list[Scorer]:
    """Read what judges.

    Args:
        judge: a reward function or "module:function"; a folder (or hub name) of a reward model; "density_ratio:STRONG,WEAK"; an object with `score(prompts, answers)` or
            `p_win(prompts, a, b)` (see `polyathlon.envs.language.judges`), which compares with the record's reference; a list of these,
            each a component; None compares with the reference.
        weights: of the components; None is 1 each.

    Raises:
        UsageError: it is none of these, or cannot be imported; weights without what they weigh.
    """
    if judge is None:
        if weights is not None:
            raise UsageError(
                "weights are of several reward functions, and answers are compared with the reference alone: give judge=[...]"
            )
        return [Scorer("reference", _same_as_reference)]
    listed = list(judge) if isinstance(judge, list | tuple) else [judge]
    found = [_scorer(each) for each in listed]
    if not found:
        raise UsageError("judge is an empty list: give reward functions, or None to compare with the reference")
    weights = [1.0] * len(found) if weights is None else list(weights)
    if len(weights) != len(found) or not all(isinstance(w, int | float) and math.isfinite(w) for w in weights):
        raise UsageError(f"weights are one finite number for each of {len(found)} reward functions, got {weights!r}")
    names: dict[str, int] = {}
    named = []
    for scorer, weight in zip(found, weights):
        count = names[scorer.name] = names.get(scorer.name, 0) + 1
        name = scorer.name if count == 1 else f"{scorer.name}_{count}"
        named.append(Scorer(name, scorer.score, scorer.right_from, float(weight)))
    return named


def _scorer(judge: Any) -> Scorer:
    if isinstance(judge, str) and judge.startswith(DENSITY_RATIO):
        from polyathlon.envs.models.density_ratio import density_ratio_of

        return _scorer(density_ratio_of(judge.removeprefix(DENSITY_RATIO)))
    if isinstance(judge, Path) or (isinstance(judge, str) and _is_model(judge)):
        from polyathlon.envs.models.scorers import TextScorer

        model = TextScorer(str(judge))
        return Scorer(Path(judge).name, _by_model(model))
    if isinstance(judge, str):
        return _scorer(_imported(judge))
    name = getattr(judge, "__name__", type(judge).__name__)
    if callable(getattr(judge, "score", None)):
        return Scorer(name, _by_model(judge))
    if callable(getattr(judge, "p_win", None)):
        return Scorer(name, _against_reference(judge.p_win, name), 0.5)
    if callable(judge):
        return Scorer(name, _by_function(judge, name))
    raise UsageError(
        "a judge is a reward function, 'module:function', the folder of a reward model, an object with score() or p_win(), or a list of "
        f"them; got {judge!r}"
    )


def _by_model(model: Any) -> Callable[[Sequence[Record], Sequence[str]], Sequence[Any]]:
    """Score by a reward model; one that compares with references gets those of the records."""

    def score(rows: Sequence[Record], answers: Sequence[str]) -> Sequence[Any]:
        prompts = [row.prompt for row in rows]
        if getattr(model, "reads_references", False):
            found: Sequence[Any] = model.score(prompts, list(answers), [_reference(row) for row in rows])
            return found
        return model.score(prompts, list(answers))

    return score


def _reference(row: Record) -> str:
    if row.reference is None:
        raise UsageError(
            f"the reward model compares answers with a reference, and {row.where} has none: give the column 'reference'"
        )
    return row.reference


def _is_model(name: str) -> bool:
    return ":" not in name or Path(name).expanduser().is_dir()


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise UsageError(f"the judge {path!r} cannot be imported here: {error}") from error
    if not hasattr(loaded, name):
        known = [key for key, value in vars(loaded).items() if callable(value) and not key.startswith("_")]
        raise unknown_name(f"function of the module {module!r}", name, known)
    return getattr(loaded, name)


def _by_function(function: Callable[..., Any], name: str) -> Callable[[Sequence[Record], Sequence[str]], list[Any]]:
    """Call a function as TRL does: prompts, completions and every column of the file by keyword, lists of one entry a sample."""
    parameters = inspect.signature(function).parameters.values()
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = {p.name for p in parameters}

    def score(rows: Sequence[Record], answers: Sequence[str]) -> list[Any]:
        is_chat = not isinstance(rows[0].columns.get("prompt", ""), str)
        prompts = [row.columns.get("prompt", row.prompt) for row in rows]
        completions = [[{"role": "assistant", "content": text}] for text in answers] if is_chat else list(answers)
        names = dict.fromkeys(key for row in rows for key in row.columns if key not in ("prompt", "completion"))
        columns = {key: [row.columns.get(key) for row in rows] for key in names if takes_all or key in known}
        try:
            found = function(prompts=prompts, completions=completions, **columns)
        except Exception as error:
            raise UsageError(
                f"the reward function {name!r} raised {type(error).__name__}: {error} (for {len(rows)} samples, the first {rows[0].where})"
            ) from error
        return checked_scores(found, rows, answers, name)

    return score


def checked_scores(found: Any, rows: Sequence[Record], answers: Sequence[str], name: str) -> list[float | None]:
    """Return one finite number or None for each sample.

    Raises:
        UsageError: there are more or fewer, or one is something else; the message names the sample.
    """
    listed = found.tolist() if hasattr(found, "tolist") else found
    if not isinstance(listed, list | tuple) or len(listed) != len(rows):
        size = f"{len(listed)} values" if isinstance(listed, list | tuple) else repr(listed)[:60]
        raise UsageError(
            f"the reward function {name!r} returned {size} for {len(rows)} samples: return a list with one number a sample"
        )
    values: list[float | None] = []
    for value, row, answer in zip(listed, rows, answers):
        value = value.item() if hasattr(value, "item") else value
        if value is not None and not (isinstance(value, bool | int | float) and math.isfinite(value)):
            raise UsageError(
                f"the reward function {name!r} returned {value!r} for {row.where} and the answer {answer[:60]!r}: give a finite number, or "
                "None where it does not apply"
            )
        values.append(None if value is None else float(value))
    return values


def _against_reference(p_win: Callable[..., Any], name: str) -> Callable[[Sequence[Record], Sequence[str]], list[Any]]:
    def score(rows: Sequence[Record], answers: Sequence[str]) -> list[Any]:
        lacking = next((row for row in rows if row.reference is None), None)
        if lacking is not None:
            raise UsageError(
                f"the judge {name!r} compares with a reference, and {lacking.where} has none: give the column 'reference'"
            )
        prompts = [row.prompt_said for row in rows]
        found = checked_scores(p_win(prompts, list(answers), [row.reference for row in rows]), rows, answers, name)
        for value, row in zip(found, rows):
            if value is None or not 0 <= value <= 1:
                raise UsageError(
                    f"the judge {name!r} gives {value!r} for {row.where}: p_win is one number in [0, 1] a pair"
                )
        return found

    return score


def _same_as_reference(rows: Sequence[Record], answers: Sequence[str]) -> list[float]:
    """Give 1 to answers that are the reference but for case, outer blanks and a full stop."""
    for row in rows:
        if row.reference is None:
            raise UsageError(
                f"nothing says how good an answer to {row.where} is: give judge= (a function, 'module:function', a reward model's folder), "
                "or the column 'reference'"
            )
    return [float(_plain(answer) == _plain(str(row.reference))) for row, answer in zip(rows, answers)]


def _plain(text: str) -> str:
    return " ".join(text.split()).rstrip(".").casefold()


def judged(
    scorers: Sequence[Scorer], rows: Sequence[Record], answers: Sequence[str]
) -> list[tuple[float, bool, Components]]:
    """Judge many answers.

    Returns:
        For each the weighted sum of what applies (0 where nothing does), whether it counts as right (every component that applies says
        so), and the components, NaN where one does not apply.
    """
    found = [scorer.score(rows, answers) for scorer in scorers]
    outcomes = []
    for i in range(len(rows)):
        values = [each[i] for each in found]
        applying = [(scorer, float(v)) for scorer, v in zip(scorers, values) if v is not None]
        total = math.fsum(scorer.weight * value for scorer, value in applying)
        is_right = bool(applying) and all(value >= scorer.right_from for scorer, value in applying)
        parts: Mapping[str, float] = {s.name: math.nan if v is None else float(v) for s, v in zip(scorers, values)}
        outcomes.append((total, is_right, dict(parts)))
    return outcomes
