"""Critiques as rewards: spans of characters with a score each become scores of words, and these of tokens (Text2Grad)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor

Span = tuple[int, int, float]
Offset = tuple[int, int]
Merge = Literal["min", "max", "sum"]
_WORD = re.compile(r"\S+")
_MERGED: dict[str, Callable[[list[float]], float]] = {"min": min, "max": max, "sum": sum}


def word_scores(
    text: str, spans: Sequence[Span], *, merge: Merge = "min", default: float = 0.0
) -> list[tuple[int, int, float]]:
    """Return (start, end, score) of each word; its score is that of the span that holds its centre.

    Args:
        text: the answer.
        spans: (start, end, score) in characters, end exclusive.
        merge: of several spans that hold it, "min", "max" or "sum" of their scores.
        default: score of a word that no span holds.
    """
    found = []
    for word in _WORD.finditer(text):
        centre = (word.start() + word.end()) / 2
        own = [score for start, end, score in spans if start <= centre < end]
        found.append((word.start(), word.end(), float(_MERGED[merge](own)) if own else default))
    return found


def token_scores(
    text: str,
    spans: Sequence[Span],
    offsets: Sequence[Offset],
    *,
    merge: Merge = "min",
    split: bool = False,
    default: float = 0.0,
    punctuation: bool = False,
) -> list[float]:
    """Return the score of each token: that of the word in which its first character that is no blank stands.

    Args:
        text: the answer.
        spans: (start, end, score) in characters.
        offsets: (start, end) of each token in `text`; equal numbers for tokens without text, which score 0.
        merge: see `word_scores`.
        split: share a word's score among its tokens; otherwise each has all of it, so that a word of three tokens counts three times.
        default: see `word_scores`.
        punctuation: whether tokens without a letter or digit have a score, which is 0 otherwise.
    """
    words = word_scores(text, spans, merge=merge, default=default)
    owners = [_owner(words, text, offset, punctuation) for offset in offsets]
    sizes = [owners.count(i) if split else 1 for i in range(len(words))]
    return [0.0 if owner is None else words[owner][2] / sizes[owner] for owner in owners]


def _owner(words: Sequence[tuple[int, int, float]], text: str, offset: Offset, punctuation: bool) -> int | None:
    """Return the number of the word that a token belongs to; None for what has no score."""
    piece = text[offset[0] : offset[1]]
    said = piece.lstrip()
    if not said or not (punctuation or any(map(str.isalnum, said))):
        return None
    first = offset[1] - len(said)
    return next((i for i, (start, end, _) in enumerate(words) if start <= first < end), None)


def spans_to_token_rewards(
    text: Sequence[str],
    spans: Sequence[Sequence[Span]],
    offsets: Sequence[Sequence[Offset]],
    mask: Tensor,
    *,
    merge: Merge = "min",
    split: bool = False,
    default: float = 0.0,
    punctuation: bool = False,
) -> Tensor:
    """Rewards of tokens by critiques of answers, [N, T] (Wang et al. 2025, Text2Grad, arXiv 2505.22338); 0 where `mask` is 0.

    The authors walk along tokens and compare joined texts; offsets of characters give the same without skips.

    Args:
        text: N answers.
        spans: of each, (start, end, score) in characters.
        offsets: of each, (start, end) in its text of the tokens at its first places of mask 1, in order; tokens beyond these score 0.
        mask: [N, T] 1 on the policy's tokens.
        merge: see `word_scores`.
        split: see `token_scores`.
        default: see `word_scores`.
        punctuation: see `token_scores`.
    """
    found = mask.new_zeros(mask.shape)
    for i, (said, own, places) in enumerate(zip(text, spans, offsets, strict=True)):
        scores = token_scores(said, own, places, merge=merge, split=split, default=default, punctuation=punctuation)
        index = (mask[i] > 0).nonzero()[: len(scores), 0]
        found[i, index] = mask.new_tensor(scores)[: len(index)]
    return found
