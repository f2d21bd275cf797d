"""How candidate answers relate to what was asked, in numbers."""

from __future__ import annotations

import itertools
import math
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .encoders import HashedText

Array = NDArray[np.float32]
_WORD = re.compile(r"\d+(?:\.\d+)?|[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_NUMBER = re.compile(r"\d+(?:\.\d+)?$")
# it begins at a sign or a digit: an expression that begins with blanks takes the square of their number
_SIGNED = re.compile(r"(?:(-)\s*)?(\d{1,15}(?:\.\d+)?)")
_SPAN = 4.0  # the largest number of a candidate that is told apart, in units of the request's largest
_GRAMS = 257
_CACHED_TABLES = 1024
NUM_RELATIONS = 8


def words_of(text: str) -> list[str]:
    """Return the words and numbers of a text in lower case; names such as `openFile` and `open_file` come apart."""
    return [word.lower() for word in _WORD.findall(text)]


def _share(part: Sequence[str], whole: set[str]) -> float:
    """Return the share of words that are in a set; words without an ending count as well."""
    if not part:
        return 1.0
    return sum(word in whole or word.rstrip("s") in whole or word + "s" in whole for word in part) / len(part)


def _order(words: Sequence[str], asked: Sequence[str]) -> float:
    """Return the share of neighbouring words, among those that both have, that stand in the order of the request."""
    first = {word: place for place, word in reversed(list(enumerate(asked)))}
    places = [first[word] for word in dict.fromkeys(words) if word in first]
    if len(places) < 2:
        return 1.0
    return sum(a < b for a, b in itertools.pairwise(places)) / (len(places) - 1)


def _request(messages: Sequence[Mapping[str, str]]) -> tuple[int, str]:
    """Return the place and the text of the last message of the user; -1 and "" where there is none."""
    last = max((i for i, one in enumerate(messages) if one["role"] == "user"), default=-1)
    return last, messages[last]["content"] if last >= 0 else ""


def _numbers_of(text: str) -> list[float]:
    """Return the numbers of a text in their order, with the minus that stands before each."""
    return [float(f"{sign}{digits}") for sign, digits in _SIGNED.findall(text)]


def _unit(numbers: Sequence[float]) -> float:
    """Return the largest absolute number, 1 where there is none but zeros."""
    return max((abs(x) for x in numbers), default=0.0) or 1.0


class CandidateFeatures:
    """Turns candidates into a table of numbers in [0, 1].

    The columns of a candidate, where the request is the last message of the user and the context all before:

    0. share of the candidate's words that are in the request
    1. share of the request's words that are in the candidate
    2. share of the candidate's numbers that are in the request
    3. share of the request's numbers that are in the candidate
    4. cosine between the hashed byte n-grams of both
    5. share of the candidate's words that are in the context
    6. log(1 + characters) / 10
    7. how far the words that both have stand in the same order: share of neighbours that do

    and then its own hashed n-grams, moved from [-1, 1] to [0, 1]. With `numbers` the last column is the last number in the candidate,
    in units of the largest one of the request, c / (2 S) + 1 / 2 with S = 4 times that unit, and `request_numbers` are those of the request
    on the scale of one unit, so that sums and differences of them are linear in what is seen. A minus is read as part of its number.

    Args:
        text_features: number of the columns of n-grams.
        numbers: how many numbers of the request are shown; 0 shows none, and no column of them.
    """

    def __init__(self, text_features: int, numbers: int = 0) -> None:
        self.text_features, self.numbers = text_features, numbers
        self._own = HashedText(text_features + 1) if text_features else None
        self._grams = HashedText(_GRAMS)
        self._known: OrderedDict[tuple[tuple[tuple[str, str], ...], tuple[str, ...]], Array] = OrderedDict()

    @property
    def size(self) -> int:
        """Number of columns."""
        return NUM_RELATIONS + self.text_features + bool(self.numbers)

    def request_numbers(self, messages: Sequence[Mapping[str, str]]) -> Array:
        """Return the first numbers [numbers] of the last message of the user, x / (2 largest) + 1 / 2; 1 / 2 where there are no more."""
        found = _numbers_of(_request(messages)[1])[: self.numbers]
        out = np.full(self.numbers, 0.5, np.float32)
        out[: len(found)] += np.array(found, np.float32) / (2 * _unit(found))
        return np.clip(out, 0.0, 1.0)

    def table(self, messages: Sequence[Mapping[str, str]], candidates: Sequence[str]) -> Array:
        """Return the features [n, 8 + text_features] of n candidates.

        Args:
            messages: the conversation so far, each message with "role" and "content".
            candidates: the answers to choose from.
        """
        # roles too: they say which message is the request
        key = (tuple((one["role"], one["content"]) for one in messages), tuple(candidates))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._table(messages, candidates)
            if len(self._known) > _CACHED_TABLES:
                self._known.popitem(last=False)
        return found

    def _table(self, messages: Sequence[Mapping[str, str]], candidates: Sequence[str]) -> Array:
        last, request = _request(messages)
        context = set(words_of(" ".join(one["content"] for one in messages[: max(last, 0)])))
        asked, gram = words_of(request), self._encoded(request)
        rows = [self._row(text, asked, gram, context) for text in candidates]
        if self.numbers:
            unit = _unit(_numbers_of(request)[: self.numbers])
            for row, text in zip(rows, candidates):
                row.append(0.5 + (_numbers_of(text) or [0.0])[-1] / (2 * _SPAN * unit))
        return np.clip(np.array(rows, np.float32).reshape(len(candidates), -1), 0.0, 1.0)

    def _encoded(self, text: str) -> Array:
        out = np.empty(_GRAMS, np.float32)
        self._grams.write(text.lower(), out)
        return out[:-1]

    def _row(self, text: str, asked: list[str], gram: Array, context: set[str]) -> list[float]:
        words = words_of(text)
        known, said = set(asked), set(words)
        row = [
            _share(words, known),
            _share(asked, said),
            _share([word for word in words if _NUMBER.match(word)], known),
            _share([word for word in asked if _NUMBER.match(word)], said),
            float(self._encoded(text) @ gram),
            _share(words, context),
            math.log1p(len(text)) / 10,
            _order(words, asked),
        ]
        if self._own is not None:
            own = np.empty(self.text_features + 1, np.float32)
            self._own.write(text, own)
            row += ((own[:-1] + 1) / 2).tolist()
        return row
