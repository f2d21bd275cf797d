"""Which answers may reach a scorer that evaluates them as code or with sympy."""

from __future__ import annotations

import ast
import math
import re

# score_answer calls eval() on the answer
_EVALUATED = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
# score_answer hands the answer to sympy.parse_expr, which evaluates it; the value of the first three must be computable
_ARITHMETIC = frozenset({"countdown", "polynomial_multiplication", "puzzle24"})
_INTEGRALS = frozenset({"intermediate_integration", "simple_integration"})
# a right answer costs at most 100,000 calls of sympy's functions in 60 problems each of both kinds of integrals
SCORER_CALLS = 300_000
# score_answer makes Fractions, whose exponents cost time and memory
_NUMBERS = frozenset({"coin_flip", "dice", "fraction_simplification"})
# tolerant scorers take a difference from nan for no difference
_NOT_FINITE = re.compile(r"(?i)(?<![^\W\d_])(nan|inf|infinity)j?(?![^\W\d_])")
_LONG_EXPONENT = re.compile(r"[eE][+-]?[\d_]{4,}")
_WORDS = re.compile(r"[\w\s.,;:|-]*")
_FUNCTIONS = frozenset(re.split(" ", "sin cos tan cot sec csc sinh cosh tanh asin acos atan exp log ln sqrt Abs"))
_MAX_FORMULA = 500
_MAX_DIGITS = 30
_MAX_DEPTH = 40
_MAX_EXPONENT = 64
_MAX_GROUP_EXPONENT = 12
_MAX_TERMS = 2_000  # of a formula multiplied out; sympy does so in single steps that no budget can interrupt


def is_symbolic(dataset: str) -> bool:
    """Return whether the scorer of a data set computes with the answer by sympy, which has no bound of its own."""
    return dataset in _ARITHMETIC or dataset in _INTEGRALS


def unsafe(dataset: str, answer: str) -> str | None:
    """Say why an answer must not reach the scorer of a data set, or None when it may.

    Args:
        dataset: name of the data set.
        answer: the normalised answer.
    """
    if dataset in _EVALUATED and not _WORDS.fullmatch(answer) and not _is_literal(answer):
        return "the answer is no plain value: words, numbers, or a list of them"
    if dataset in _ARITHMETIC and not _is_formula(answer, functions=0):
        return "the answer is no formula of numbers, names, + - * / and small powers, of a bounded size"
    if dataset in _INTEGRALS and not _is_formula(answer, functions=2):
        return "the answer is no formula of numbers, names, + - * / ** and elementary functions, of a bounded size"
    if dataset == "rush_hour" and re.search(r"\d{3,}", answer):  # its scorer walks step by step
        return "the answer moves a car by more than 99"
    if _NOT_FINITE.search(answer):
        return "the answer is no finite number"
    if dataset in _NUMBERS and _LONG_EXPONENT.search(answer):
        return "the answer holds a number with too large an exponent"
    return None


def _is_literal(answer: str) -> bool:
    try:
        ast.literal_eval(answer.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return False
    return True


def _is_formula(answer: str, functions: int) -> bool:
    if len(answer) > _MAX_FORMULA or _LONG_EXPONENT.search(answer):
        return False
    try:
        formula = ast.parse(answer.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return _small(formula, functions, _MAX_DEPTH) and max(_terms(formula)) <= _MAX_TERMS


def _small(node: ast.expr, functions: int, depth: int) -> bool:
    """Return whether a formula has plain parts only, and no power that could grow out of bounds.

    Args:
        node: the formula.
        functions: how deep functions may be nested.
        depth: how deep operations may be nested.
    """
    if depth < 0:
        return False
    match node:
        case ast.Constant(value=value):
            return isinstance(value, int | float) and not isinstance(value, bool) and len(str(value)) <= _MAX_DIGITS
        case ast.Name(id=name):
            return len(name) <= 12 and not name.startswith("_")
        case ast.UnaryOp(op=ast.UAdd() | ast.USub(), operand=operand):
            return _small(operand, functions, depth - 1)
        case ast.BinOp(left=base, op=ast.Pow(), right=exponent):
            return _small(base, functions, depth - 1) and _small_power(base, exponent, functions, depth - 1)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div(), right=right):
            return _small(left, functions, depth - 1) and _small(right, functions, depth - 1)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
            return functions > 0 and name in _FUNCTIONS and _small(argument, functions - 1, depth - 1)
    return False


def _small_power(base: ast.expr, exponent: ast.expr, functions: int, depth: int) -> bool:
    size = _constant(exponent)
    if size is None:  # an exponent with a name in it stays as it is; arithmetic must be computable
        plain = not any(isinstance(part, ast.Pow) for part in ast.walk(exponent))
        return functions > 0 and plain and isinstance(base, ast.Name) and _small(exponent, functions, depth)
    atom = isinstance(base, ast.Constant | ast.Name)
    nested = any(isinstance(part, ast.Pow) for part in ast.walk(base))
    return abs(size) <= (_MAX_EXPONENT if atom else 4 if nested else _MAX_GROUP_EXPONENT)


def _terms(node: ast.expr) -> tuple[int, int]:
    """Bound the terms of the numerator and of the denominator of a formula of `_small` when it is multiplied out.

    A power n of k terms has at most (n + k - 1 over n) of them, a product the product of both numbers, a sum of two
    fractions a / b + c / d at most a d + c b over b d. What is beyond `_MAX_TERMS` counts as one more: towers of powers
    have numbers of terms whose digits alone fill the memory.
    """
    above, below = _terms_of_parts(node)
    return min(above, _MAX_TERMS + 1), min(below, _MAX_TERMS + 1)


def _terms_of_parts(node: ast.expr) -> tuple[int, int]:
    match node:
        case ast.BinOp(left=base, op=ast.Pow(), right=exponent):
            above, below = _terms(base)
            size = _constant(exponent)
            if size is not None and size < 0:
                above, below = below, above
            n = 1 if size is None else math.ceil(abs(size))
            return math.comb(n + above - 1, n), math.comb(n + below - 1, n)
        case ast.BinOp(left=left, op=operation, right=right):
            (a, b), (c, d) = _terms(left), _terms(right)
            match operation:
                case ast.Mult():
                    return a * c, b * d
                case ast.Div():
                    return a * d, b * c
            return a * d + c * b, b * d
        case ast.UnaryOp(operand=inner) | ast.Call(args=[inner]):
            return _terms(inner)
    return 1, 1


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
