"""Second opinions: what an answer must also satisfy where reasoning-gym's scorer calls wrong answers right."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

Item = Mapping[str, Any]


def confirmed(dataset: str, answer: str, item: Item) -> bool:
    """Return whether an answer that the scorer calls fully right is right.

    Only data sets whose scorer (reasoning-gym 0.1.25) has a gap are looked at; the others are taken at their word.

    Args:
        dataset: name of the data set.
        answer: the normalised answer.
        item: the problem.
    """
    check = _CHECKS.get(dataset)
    return check is None or check(answer, item)


def _same_words(answer: str, item: Item) -> bool:
    return answer.lower().split() == str(item["answer"]).lower().split()


def _same_letters(answer: str, item: Item) -> bool:
    return "".join(answer.lower().split()) == "".join(str(item["answer"]).lower().split())


def _same_count(answer: str, item: Item) -> bool:
    gold = str(item["answer"]).strip()
    if re.fullmatch(r"-?\d+", gold) is None:
        return True
    return re.fullmatch(r"[+-]?\d{1,30}", answer) is not None and int(answer) == int(gold)


def _same_probability(answer: str, item: Item) -> bool:
    given, gold = (float(Fraction(text.replace(",", ""))) for text in (answer, str(item["answer"])))
    return math.isclose(given, gold, rel_tol=1e-3)


def _same_numbers(answer: str, item: Item) -> bool:
    given, gold = (ast.literal_eval(text) for text in (answer, str(item["answer"])))
    return [float(number) for number in given] == [float(number) for number in gold]


def _makes_24(answer: str, item: Item) -> bool:
    used = sorted(int(number) for number in re.findall(r"\d+", answer))
    return used == sorted(item["metadata"]["numbers"]) and _value(ast.parse(answer, mode="eval").body) == 24


def _value(node: ast.expr) -> Fraction:
    """Return the exact value of a formula of whole numbers, + - * /; ValueError for anything else."""
    match node:
        case ast.Constant(value=int() as value):
            return Fraction(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _value(left) + _value(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _value(left) - _value(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _value(left) * _value(right)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _value(left) / _value(right)
    raise ValueError("no formula of whole numbers, + - * /")


_CHECKS: dict[str, Callable[[str, Item], bool]] = {
    # a negative right count makes every wrong one score above 1
    "calendar_arithmetic": _same_count,
    # a prefix counts as much as the number: "0" for 0.3125
    "coin_flip": _same_probability,
    # ten matching letters are enough
    "figlet_font": _same_letters,
    # any text that is not empty is true
    "game_of_life_halting": _same_words,
    # words after the right ones are not looked at
    "letter_jumble": _same_words,
    # every number may be off by one
    "number_sorting": _same_numbers,
    # other numbers than the given ones may be used, and the value is cut to a whole number
    "puzzle24": _makes_24,
    # letters after the right ones are not looked at, by the rounding of a sum
    "spell_backward": _same_letters,
}
