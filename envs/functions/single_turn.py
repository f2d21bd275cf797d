"""Verdicts and reference answers of problems that are answered once."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from polyathlon.envs.language import Verdict

from .calls import Call, DecodeError, write_calls
from .checking import Gold, Schema, call_mode, check_calls, count_matches
from .decoding import decoder_of
from .entries import REFUSALS, RELEVANT, Entry
from .golds import gold_calls
from .mutations import MISTAKES

NO_CALL = "None of the functions fits."
_FORMAT, _NAMES, _MATCHED = 0.1, 0.2, 0.7
NUM_CANDIDATES = 6
_TRIES = 40


def judge_answer(entry: Entry, text: str, is_dense: bool = False) -> Verdict:
    """Judge the answer to a problem; never raises, whatever the text.

    Args:
        entry: the problem.
        text: the answer.
        is_dense: score a wrong answer by its parts: 0.1 for calls that can be read, 0.2 for the right functions, 0.7 times
            the share of gold calls that are matched.
    """
    try:
        calls = decoder_of(entry.language)(text)
    except DecodeError as error:
        return _unread(entry, str(error))
    if entry.category in REFUSALS or entry.category in RELEVANT:
        is_right = bool(calls) == (entry.category in RELEVANT)
        reason = "right" if is_right else "a function was called, but none fits" if calls else "no function was called"
        return _verdict(is_right, float(is_right), reason, 1.0, float(is_right), float(is_right))
    schemas, gold, language = entry.functions, entry.gold, entry.language
    checked = check_calls(schemas, calls, gold, call_mode(entry.category), language)
    if checked.ok:
        return _verdict(True, 1.0, "right", 1.0, 1.0, 1.0)
    names = float(sorted([call.name for call in calls]) == sorted([name for one in gold for name in one]))
    was_compared = names and _is_one(schemas, calls, gold, call_mode(entry.category))
    matched = 0.0 if was_compared else count_matches(schemas, calls, gold, language) / len(gold)
    score = _FORMAT + _NAMES * names + _MATCHED * matched if is_dense else 0.0
    where = f" ({checked.parameter})" if checked.parameter else ""
    return _verdict(False, score, checked.code.replace("_", " ") + where, 1.0, names, matched)


def _is_one(schemas: Sequence[Schema], calls: Sequence[Call], gold: Sequence[Gold], mode: str) -> bool:
    """Return whether the one call was compared with the one gold call already, by the only schema of that name."""
    if not len(calls) == len(gold) == 1 or (mode == "simple" and schemas[0]["name"] not in gold[0]):
        return False
    return len(gold[0]) == 1 and sum([schema["name"] in gold[0] for schema in schemas]) == 1


def _unread(entry: Entry, reason: str) -> Verdict:
    if entry.category in REFUSALS:
        return _verdict(True, 1.0, "right: no function was called", 0.0, 1.0, 1.0)
    parts = {"exact": 0.0, "format": 0.0, "names": 0.0, "matched": 0.0}
    return Verdict(False, 0.0, True, reason, parts)


def _verdict(is_right: bool, score: float, reason: str, readable: float, names: float, matched: float) -> Verdict:
    parts = {"exact": float(is_right), "format": readable, "names": names, "matched": matched}
    return Verdict(is_right, score, False, reason, parts)


def reference_answer(entry: Entry) -> str | None:
    """Return a right answer, or None where none is known."""
    if entry.category in REFUSALS:
        return NO_CALL
    if entry.gold is None:
        return None
    for quoted in (False, True):
        calls = gold_calls(entry.gold, entry.functions, entry.language, quoted)
        text = write_calls(calls, entry.language)
        if judge_answer(entry, text).correct:
            return text
    return None


def answer_candidates(entry: Entry) -> list[str]:
    """Return a right answer and plausible wrong ones, shuffled in a way that depends on the problem alone.

    Where no right answer is known, the one that is nearest to the gold answer takes its place.
    """
    rng = random.Random(f"{entry.id} candidates")
    calls = gold_calls(entry.gold, entry.functions, entry.language) if entry.gold else _invented(entry, rng)
    right = reference_answer(entry)
    found = [write_calls(calls, entry.language) if right is None else right]
    if entry.category in REFUSALS:
        found.append(write_calls(calls, entry.language))
    elif entry.category in RELEVANT:
        found += [NO_CALL, "[]"]
    wrong = varied(calls, entry, rng, lambda text: not judge_answer(entry, text).correct)
    found += [text for text in wrong if text not in found][: NUM_CANDIDATES - len(found)]
    rng.shuffle(found)
    return found


def varied(calls: list[Call], entry: Entry, rng: random.Random, keep: Callable[[str], bool]) -> list[str]:
    """Return answers that make one mistake, each another one where possible.

    Args:
        calls: calls to start from.
        entry: the problem.
        rng: generator of the mistakes.
        keep: which answers to keep.
    """
    found: list[str] = []
    kinds = list(MISTAKES)
    for attempt in range(_TRIES):
        if len(found) >= NUM_CANDIDATES or not calls:
            break
        text = write_calls(MISTAKES[kinds[attempt % len(kinds)]](calls, entry.functions, rng), entry.language)
        if text not in found and keep(text):
            found.append(text)
    return found


def _invented(entry: Entry, rng: random.Random) -> list[Call]:
    """Return a call of one of the functions with made-up arguments, or none where there are no functions."""
    if not entry.functions:
        return []
    schema = rng.choice(list(entry.functions))
    words: Sequence[str] = [word.strip("?.,'") for word in entry.turns[0][-1]["content"].split()] or ["x"]
    made = {"integer": 1, "float": 1.0, "boolean": True, "array": [], "tuple": [], "dict": {}}
    properties = schema["parameters"]["properties"]
    wanted = list(schema["parameters"].get("required", ())) or list(properties)[:1]
    return [Call(schema["name"], {p: made.get(properties[p]["type"], rng.choice(words)) for p in wanted})]
