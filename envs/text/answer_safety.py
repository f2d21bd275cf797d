"""Which answers may reach a scorer that evaluates them as code or with sympy."""

from __future__ import annotations

import ast
import re

# score_answer calls eval() on the answer
_EVALUATED = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
# score_answer hands the answer to sympy.parse_expr, which evaluates it
_PARSED = frozenset(
    {"countdown", "intermediate_integration", "polynomial_multiplication", "puzzle24", "simple_integration"}
)
# score_answer makes Fractions, whose exponents cost time and memory
_NUMBERS = frozenset({"coin_flip", "dice", "fraction_simplification"})
_WORDS = re.compile(r"[\w\s.,;:|-]*")
_FUNCTIONS = frozenset(re.split(" ", "sin cos tan cot sec csc sinh cosh tanh asin acos atan exp log ln sqrt Abs"))
_MAX_FORMULA = 500
_MAX_DIGITS = 30
_MAX_EXPONENT = 64
_MAX_GROUP_EXPONENT = 12


def unsafe(dataset: str, answer: str) -> str | None:
    """Say why an answer must not reach the scorer of a data set, or None when it may.

    Args:
        dataset: name of the data set.
        answer: the normalised answer.
    """
    if dataset in _EVALUATED and not _WORDS.fullmatch(answer) and not _is_literal(answer):
        return "the answer is no plain value: words, numbers, or a list of them"
    if dataset in _PARSED and not _is_formula(answer):
        return "the answer is no formula of numbers, names, + - * / ** and elementary functions"
    if dataset in _NUMBERS and re.search(r"[eE][+-]?\d{4,}", answer):
        return "the answer holds a number with too large an exponent"
    return None


def _is_literal(answer: str) -> bool:
    try:
        ast.literal_eval(answer.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return False
    return True


def _is_formula(answer: str) -> bool:
    if len(answer) > _MAX_FORMULA:
        return False
    try:
        body = ast.parse(answer.strip(), mode="eval").body
        return _small(body, 0)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False


def _small(node: ast.expr, depth: int) -> bool:
    """Tell whether a formula has plain parts only and no power that could grow out of bounds."""
    if depth > 40:
        return False
    match node:
        case ast.Constant(value=value):
            return isinstance(value, int | float) and not isinstance(value, bool) and len(str(value)) <= _MAX_DIGITS
        case ast.Name(id=name):
            return len(name) <= 12 and not name.startswith("_")
        case ast.UnaryOp(op=ast.UAdd() | ast.USub(), operand=operand):
            return _small(operand, depth + 1)
        case ast.BinOp(left=base, op=ast.Pow(), right=exponent):
            return _small(base, depth + 1) and _small_power(base, exponent)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div(), right=right):
            return _small(left, depth + 1) and _small(right, depth + 1)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
            return name in _FUNCTIONS and _small(argument, depth + 1)
    return False


def _small_power(base: ast.expr, exponent: ast.expr) -> bool:
    size = _constant(exponent)
    if size is None:  # an exponent with a name in it, as in exp(x) written E**x, cannot be computed and stays as it is
        return not any(isinstance(part, ast.Pow) for part in ast.walk(exponent)) and isinstance(base, ast.Name)
    atom = isinstance(base, ast.Constant | ast.Name)
    nested = any(isinstance(part, ast.Pow) for part in ast.walk(base))
    return abs(size) <= (_MAX_EXPONENT if atom else 4 if nested else _MAX_GROUP_EXPONENT)


def _constant(node: ast.expr) -> float | None:
    match node:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _constant(operand)
            return None if inner is None else -inner
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            a, b = _constant(left), _constant(right)
            return None if a is None or not b else a / b
    return None
