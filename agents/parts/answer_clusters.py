"""Answers of a group that mean the same, and the reward of meaning what the others mean (EMPO)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

import torch
from torch import Tensor

from polyathlon.envs.language.tags import tagged

from .advantages import group_advantage
from .option_types import Fraction, NonNegative
from .wiring import compares_groups, find_part

Rule = Literal["none", "maths", "free_text", "entropy"]
COPIED = 0.8  # share of an answer's tokens that stand, in their order, in the question

_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_WHOLE = r"\d{1,3}(?:,\d{3})+|\d+"  # "1,2" are two numbers
_NUMBER = re.compile(rf"[-+]?(?:(?:{_WHOLE})(?P<part>\.\d+)?|(?P<small>\.\d+))(?P<power>[eE][-+]?\d+)?")


def final_answer(text: str) -> str:
    r"""Return what the last \boxed{...} or <answer>...</answer> holds, else what follows the reasoning; without outer blanks."""
    text = text.rpartition("</think>")[2]
    found = _BOXED.findall(text) or tagged(text, "answer")
    return str(found[-1] if found else text).strip()


def same_answer(first: str, second: str) -> bool:
    """Whether two answers say the same: equal numbers (fractions to nine digits), or equal texts but for case and blanks."""
    first, second = (" ".join(text.casefold().split()).rstrip(".") for text in (first, second))
    if first == second:
        return True
    found = [_NUMBER.fullmatch(text) for text in (first, second)]
    if not all(found):
        return False
    a, b = (text.replace(",", "") for text in (first, second))
    if not any(match[name] for match in found if match for name in ("part", "small", "power")):
        return Decimal(a) == Decimal(b)  # integers of any length
    return math.isclose(float(a), float(b), rel_tol=1e-9)


def clusters(answers: Sequence[str], equivalent: str = "answer_clusters:same_answer") -> list[int]:
    """Number the clusters of answers: each is compared with the first member of every cluster so far; empty ones are alone.

    Args:
        answers: n of them.
        equivalent: path of a function of two texts.
    """
    same = find_part(equivalent)
    firsts: list[str] = []
    found: list[int] = []
    for answer in answers:
        match = next((c for c, first in enumerate(firsts) if answer and first and same(first, answer)), None)
        if match is None:
            match = len(firsts)
            firsts.append(answer)
        found.append(match)
    return found


def cluster_rewards(
    ids: Sequence[int],
    empty: Sequence[bool],
    copied: Sequence[bool],
    rule: Rule,
    least_share: float,
    entropy_low: float,
    entropy_high: float,
) -> list[float]:
    """Rewards of one group, share of the cluster of each answer, under a threshold rule; see `cluster_advantage`."""
    n, count = len(ids), Counter(ids)
    shares = [count[i] / n for i in ids]
    entropy = -sum(c / n * math.log(c / n) for c in count.values())
    if rule == "maths":
        is_silent = n > 1 and len(count) == n
        return [0.0 if is_silent or e else share for share, e in zip(shares, empty, strict=True)]
    if rule == "free_text":
        is_silent = len(count) > 1 and max(shares) < least_share
        plain = [0.0 if is_silent or c else share for share, c in zip(shares, copied, strict=True)]
        return [-0.5 if e else share for share, e in zip(plain, empty, strict=True)]
    if rule == "entropy" and not entropy_low <= entropy <= entropy_high:
        return [0.0] * n
    return shares


def cluster_frequency(
    text: Sequence[str],
    group: Tensor,
    tokens: Tensor,
    mask: Tensor,
    rule: Rule = "maths",
    least_share: float = 0.2,
    entropy_low: float = 0.0,
    entropy_high: float = 1e9,
    equivalent: str = "answer_clusters:same_answer",
) -> Tensor:
    """How often each answer's meaning occurs in its group, [N]; see `cluster_advantage`."""
    answers = [final_answer(each) for each in text]
    found = mask.new_zeros(len(answers))
    for q in group.unique():
        rows = (group == q).nonzero()[:, 0].tolist()
        own = [answers[i] for i in rows]
        copied = [rule == "free_text" and copies_question(tokens[i], mask[i]) for i in rows]
        empty = [not answer for answer in own]
        paid = cluster_rewards(clusters(own, equivalent), empty, copied, rule, least_share, entropy_low, entropy_high)
        found[rows] = torch.tensor(paid, dtype=found.dtype, device=found.device)
    return found


@compares_groups
def cluster_advantage(
    text: Sequence[str],
    group: Tensor,
    tokens: Tensor,
    mask: Tensor,
    *,
    rule: Rule = "maths",
    least_share: Fraction = 0.2,
    entropy_low: NonNegative = 0.0,
    entropy_high: NonNegative = 1e9,
    equivalent: str = "answer_clusters:same_answer",
    eps: NonNegative = 1e-6,
) -> Tensor:
    """GRPO's advantage of how often an answer's meaning occurs in its group; no reward is read (Zhang et al. 2025, arXiv 2504.05812).

    | rule | what earns otherwise |
    |---|---|
    | "none" | nothing: the share of the cluster (the authors' later code) |
    | "maths" | an empty answer 0; all 0 where all answers differ |
    | "free_text" | an empty answer -1/2, one that copies the question 0; all 0 where the largest share is below `least_share` |
    | "entropy" | all 0 unless the entropy of the clusters lies in [entropy_low, entropy_high] (the paper) |

    Args:
        text: [N] answers as texts.
        group: [N] int64.
        tokens: [N, T + 1].
        mask: [N, T] 1 on the policy's tokens; what stands before them is the question.
        rule: see above.
        least_share: of "free_text".
        entropy_low: of "entropy", in nats.
        entropy_high: of "entropy".
        equivalent: path of a function of two answers, "module:function"; equal numbers and equal texts by default.
        eps: added to the deviation.

    Returns:
        [N].
    """
    found = cluster_frequency(text, group, tokens, mask, rule, least_share, entropy_low, entropy_high, equivalent)
    return group_advantage(found, group, center="group", scale="group", eps=eps)


def copies_question(tokens: Tensor, mask: Tensor) -> bool:
    """Whether an answer is part of its question, or over .8 of its tokens are a subsequence of it (ROUGE-L precision on tokens).

    Args:
        tokens: [T + 1].
        mask: [T] 1 on the policy's tokens.
    """
    own = mask > 0
    first = int(own.float().argmax()) + 1 if bool(own.any()) else len(tokens)
    question, answer = tokens[:first].tolist(), tokens[1:][own].tolist()
    if not answer:
        return False
    row = [0] * (len(answer) + 1)  # the longest common subsequence, a word of the question at a time
    for word in question:
        before = list(row)
        for k, other in enumerate(answer):
            row[k + 1] = before[k] + 1 if word == other else max(before[k + 1], row[k])
    return row[-1] / len(answer) > COPIED
