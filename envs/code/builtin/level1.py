"""Level 1: an expression or two."""

from __future__ import annotations

from .making import Book, numbers, text, words

BOOK = Book(1)


@BOOK.problem([((3,), 9), ((-2,), 4)], lambda r: (r.randint(-50, 50),))
def square(n: int) -> int:
    """Return n times n."""
    return n * n


@BOOK.problem([((7, 3), 3), ((-1, 5), -1)], lambda r: (r.randint(-9, 9), r.randint(-9, 9)), [(4, 4)])
def smaller(a: int, b: int) -> int:
    """Return the smaller one of two numbers."""
    return min(a, b)


@BOOK.problem([((4,), True), ((7,), False)], lambda r: (r.randint(-99, 99),), [(0,), (-3,)])
def is_even(n: int) -> bool:
    """Return whether n is even."""
    return n % 2 == 0


@BOOK.problem([(("abc",), "cba"), (("",), "")], lambda r: (text(r),), [("x",)])
def backwards(s: str) -> str:
    """Return the text read from its end to its beginning."""
    return s[::-1]


@BOOK.problem([(([1, 2, 3],), 6), (([],), 0)], lambda r: (numbers(r),))
def total(values: list[int]) -> int:
    """Return the sum of the numbers; 0 for none."""
    return sum(values)


@BOOK.problem([(([3, 9, 2],), 9), (([-5],), -5)], lambda r: (numbers(r, least=1),))
def largest(values: list[int]) -> int:
    """Return the largest one of the numbers, of which there is at least one."""
    return max(values)


@BOOK.problem([((0,), 32.0), ((100,), 212.0)], lambda r: (r.randint(-60, 120),), compare="close")
def fahrenheit(celsius: int) -> float:
    """Return a temperature in degrees Fahrenheit: 9/5 of the degrees Celsius, plus 32."""
    return celsius * 9 / 5 + 32


@BOOK.problem([(("banana", "a"), 3), (("kiwi", "z"), 0)], lambda r: (text(r, "ab"), r.choice("ab")))
def count_letter(s: str, letter: str) -> int:
    """Return how often a letter occurs in a text."""
    return s.count(letter)


@BOOK.problem([((13,), 3), ((40,), 0)], lambda r: (r.randint(0, 10**6),), [(0,), (9,)])
def last_digit(n: int) -> int:
    """Return the last decimal digit of a number that is not negative."""
    return n % 10


@BOOK.problem([(([1, 2, 3],), [2, 4, 6]), (([],), [])], lambda r: (numbers(r),))
def doubled(values: list[int]) -> list[int]:
    """Return the numbers, each one doubled, in their order."""
    return [2 * value for value in values]


@BOOK.problem([((5,), 5), ((-5,), 5)], lambda r: (r.randint(-99, 99),), [(0,)])
def magnitude(n: int) -> int:
    """Return the absolute value of n."""
    return abs(n)


@BOOK.problem([(([4, 5, 6],), [4, 6]), (([7],), [7])], lambda r: (numbers(r, least=1),))
def first_and_last(values: list[int]) -> list[int]:
    """Return the first and the last number; a list of one number is returned as it is."""
    return [values[0], values[-1]] if len(values) > 1 else [values[0]]


@BOOK.problem([((3, 4), 14), ((1, 1), 4)], lambda r: (r.randint(1, 50), r.randint(1, 50)))
def perimeter(width: int, height: int) -> int:
    """Return the length of the edge around a rectangle."""
    return 2 * (width + height)


@BOOK.problem([((["a", "b"], "-"), "a-b"), (([], "-"), "")], lambda r: (words(r), r.choice("-+,")))
def joined(parts: list[str], between: str) -> str:
    """Return the parts as one text, with `between` between neighbours."""
    return between.join(parts)


@BOOK.problem([((15,), "positive"), ((-2,), "negative"), ((0,), "zero")], lambda r: (r.randint(-3, 3),))
def sign_word(n: int) -> str:
    """Return "positive", "negative" or "zero"."""
    return "positive" if n > 0 else "negative" if n < 0 else "zero"


@BOOK.problem([(([1, 5, 2], 3), False), (([1, 5, 2], 5), True)], lambda r: (numbers(r, 0, 5), r.randint(0, 5)))
def holds(values: list[int], wanted: int) -> bool:
    """Return whether a number is among the values."""
    return wanted in values
