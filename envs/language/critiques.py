"""What critics say, read: spans of characters from numbers, quotations or JSON; what cannot be read is counted, never guessed."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Span = tuple[int, int, float]
GOOD, POOR = 1.0, -1.0
_LISTS = {"good_spans": GOOD, "good": GOOD, "poor_spans": POOR, "poor": POOR}
_MOST_PAIRS, _MOST_WINDOWS, _MOST_FAILURES = 10_000, 1_000_000, 32
# what follows an opening bracket of JSON; blanks are bounded, so that many brackets with many blanks cost no square
_BEGINS = {"{": re.compile(r'\{\s{0,99}["}]'), "[": re.compile(r"\[\s{0,99}[\[{\"\-0-9tfnNI\]]")}
_ALIKE = 0.8  # ratio from which a quotation is taken for a part of the answer


@dataclass(frozen=True)
class Critique:
    """What a critic says of an answer.

    Attributes:
        spans: (start, end, score) in characters, end exclusive, within the answer.
        outside: spans that were left out since they do not lie within the answer.
        unmatched: quotations that were left out since the answer holds nothing like them.
        overlapping: spans that share characters with one before them; they stay.
        failure: why nothing could be read, else None.
    """

    spans: tuple[Span, ...] = ()
    outside: int = 0
    unmatched: int = 0
    overlapping: int = 0
    failure: str | None = None


def read_critique(said: Any, answer: str) -> Critique:
    """Read what a critic says of an answer.

    Spans are (start, end, score), {"start", "end", "score"} or {"text", "score"}, a quotation of the answer; a text is JSON: a list of spans, or
    an object with "spans", or with "good_spans" and "poor_spans", lists of quotations of score 1 and -1.

    Args:
        said: spans, such a text, or None.
        answer: what they are spans of.
    """
    if said is None:
        return Critique(failure="the critic says nothing of it")
    try:
        listed = _listed(_parsed(said) if isinstance(said, str) else said)
        read = [_span(each, answer) for each in listed]
    except (TypeError, ValueError) as error:
        return Critique(failure=str(error))
    kept = sorted(span for span in read if span is not None and 0 <= span[0] < span[1] <= len(answer))
    unmatched = read.count(None)
    reach, overlapping = 0, 0
    for start, end, _ in kept:
        overlapping += start < reach
        reach = max(reach, end)
    return Critique(tuple(kept), len(read) - len(kept) - unmatched, unmatched, overlapping)


def _parsed(text: str) -> Any:
    """Return the last object with spans in a text, else its first list: what is said around them may have brackets of its own."""
    objects, wrong = _values(text, "{")
    with_spans = [value for value in objects if any(name in value for name in ("spans", *_LISTS))]
    if with_spans:
        return with_spans[-1]
    lists, _ = _values(text, "[")
    if wrong or not (lists or objects):  # a list within what does not parse is a part of what was meant
        raise ValueError(f"no JSON in {text[:60]!r}" + (f": {wrong}" if wrong else ""))
    return (lists or objects)[0]


def _values(text: str, bracket: str) -> tuple[list[Any], ValueError | None]:
    """Return what JSON begins with a bracket in a text, and what is wrong with the last that begins so and is none.

    A bracket that no JSON can begin with costs nothing; after `_MOST_FAILURES` others, each of which may be read to the end
    of the text, nothing more is looked for.
    """
    decoder, found, failures = json.JSONDecoder(), [], 0
    wrong: ValueError | None = None
    begins, place = _BEGINS[bracket], text.find(bracket)
    while place >= 0 and failures < _MOST_FAILURES:
        end = place + 1
        if begins.match(text, place):
            try:
                value, end = decoder.raw_decode(text, place)
                found.append(value)
            except json.JSONDecodeError as error:
                wrong, failures = error, failures + 1
            except RecursionError:
                wrong, failures = ValueError("it is nested too deep"), failures + 1
        elif wrong is None:
            wrong = ValueError(f"{bracket} begins no JSON at character {place}")
        place = text.find(bracket, end)
    return found, wrong


def _listed(said: Any) -> list[Any]:
    if isinstance(said, Mapping):
        if "spans" in said:
            return _listed(said["spans"])
        names = [name for name in _LISTS if name in said]
        if not names:
            raise ValueError(f"an object without spans, good_spans or poor_spans: {str(said)[:60]}")
        return [{"text": text, "score": _LISTS[name]} for name in names for text in _listed(said[name])]
    if not isinstance(said, Sequence) or isinstance(said, str):
        raise ValueError(f"spans are a list, got {str(said)[:60]!r}")
    return list(said)


def _span(each: Any, answer: str) -> Span | None:
    """Return a span, or None for a quotation that the answer does not hold."""
    if isinstance(each, Mapping):
        score = _number(each.get("score"))
        if "text" in each:
            place = find_quotation(str(each["text"]), answer)
            return None if place is None else (*place, score)
        each = (each.get("start"), each.get("end"), score)
    if not isinstance(each, Sequence) or isinstance(each, str) or len(each) != 3:
        raise ValueError(f"a span is (start, end, score) or a dict with text and score, got {str(each)[:60]!r}")
    start, end, score = each
    if not all(isinstance(x, int) and not isinstance(x, bool) for x in (start, end)):
        raise ValueError(f"start and end of a span are numbers of characters, got {start!r} and {end!r}")
    return start, end, _number(score)


def _number(score: Any) -> float:
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise ValueError(f"the score of a span is a finite number, got {score!r}")
    return float(score)


def find_quotation(text: str, answer: str) -> tuple[int, int] | None:
    """Find a quotation in an answer: as it stands, in other case, the words that are most like it, or between its first and last half.

    The third way is left out where the quotation's characters times the answer's words are more than a million.

    Args:
        text: the quotation.
        answer: where it is looked for.

    Returns:
        Its first character and the one after its last; None where there is nothing like it.
    """
    text = text.strip()
    if not text:
        return None
    for whole, part in ((answer, text), (answer.lower(), text.lower())):
        place = whole.find(part)
        if place >= 0 and len(whole) == len(answer):
            return place, place + len(part)
    lowered = answer.lower()  # which is longer than the answer where it has letters such as İ
    is_short = len(text) * len(answer.split()) <= _MOST_WINDOWS  # every place is compared, letter by letter
    return (_most_alike(text.lower(), answer) if is_short else None) or (
        _by_halves(text.lower(), lowered) if len(lowered) == len(answer) else None
    )


def _most_alike(text: str, answer: str) -> tuple[int, int] | None:
    words = [(m.start(), m.end()) for m in re.finditer(r"\S+", answer)]
    count, best, found = len(text.split()), _ALIKE, None
    matcher = difflib.SequenceMatcher(autojunk=False, b=text)
    for i in range(len(words) - count + 1):
        start, end = words[i][0], words[i + count - 1][1]
        matcher.set_seq1(answer[start:end].lower())
        if matcher.real_quick_ratio() >= best and matcher.quick_ratio() >= best and (ratio := matcher.ratio()) >= best:
            best, found = math.nextafter(ratio, 2), (start, end)
    return found


def _by_halves(text: str, answer: str) -> tuple[int, int] | None:
    words = text.split()
    if len(words) < 4:
        return None
    first, last = " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])
    start, end = answer.find(first), answer.rfind(last)
    if start < 0 and end < 0:
        return None
    if start < 0 or end < start:
        return (end, end + len(last)) if start < 0 else (start, start + len(first))
    return start, end + len(last)


def compared_spans(answer: str, solution: str) -> list[Span]:
    """Criticise an answer by a right one: words that it shares with it, in order, are good, all others poor.

    Where the two share so many words that they make more than 10,000 pairs, the commonest ones count beside others alone:
    an answer that says one word over and over would take seconds, and is good nowhere.

    Args:
        answer: the answer.
        solution: a right one.

    Returns:
        A span a word.
    """
    words = [(m.start(), m.end()) for m in re.finditer(r"\S+", answer)]
    said = [answer[start:end].lower() for start, end in words]
    right = solution.lower().split()
    often, here = Counter(right), Counter(said)
    pairs = {word: often[word] * here[word] for word in often}
    total, common = sum(pairs.values()), set()
    for word in sorted(pairs, key=pairs.__getitem__, reverse=True):
        if total <= _MOST_PAIRS:
            break
        common.add(word)
        total -= pairs[word]
    matcher = difflib.SequenceMatcher(common.__contains__ if common else None, said, right, autojunk=False)
    shared = {i for block in matcher.get_matching_blocks() for i in range(block.a, block.a + block.size)}
    return [(start, end, GOOD if i in shared else POOR) for i, (start, end) in enumerate(words)]
