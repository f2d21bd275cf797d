"""Level 2: one loop, one dict, one text to take apart."""

from __future__ import annotations

from .making import Book, grid, numbers, text, words

BOOK = Book(2)


@BOOK.problem([(("level",), True), (("ab",), False)], lambda r: (text(r, "ab ", most=5),), [("",), ("A a",)])
def is_palindrome(s: str) -> bool:
    """Return whether a text reads the same in both directions; letters are as they are, blanks count."""
    return s == s[::-1]


@BOOK.problem([((5,), 120), ((0,), 1)], lambda r: (r.randint(0, 25),))
def factorial(n: int) -> int:
    """Return the product of the whole numbers from 1 to n; 1 for n = 0."""
    result = 1
    for k in range(2, n + 1):
        result *= k
    return result


@BOOK.problem([(([3, 1, 3, 2, 1],), [3, 1, 2]), (([],), [])], lambda r: (numbers(r, 0, 5),))
def without_repeats(values: list[int]) -> list[int]:
    """Return every number once, in the order in which they first occur."""
    return list(dict.fromkeys(values))


@BOOK.problem([(("to be or to",), {"to": 2, "be": 1, "or": 1}), (("",), {})], lambda r: (text(r, "ab  "),))
def word_counts(s: str) -> dict[str, int]:
    """Return how often each word occurs; words are separated by blanks."""
    counts: dict[str, int] = {}
    for word in s.split():
        counts[word] = counts.get(word, 0) + 1
    return counts


@BOOK.problem([((1234,), 10), ((0,), 0)], lambda r: (r.randint(0, 10**9),), [(99,)])
def digit_sum(n: int) -> int:
    """Return the sum of the decimal digits of a number that is not negative."""
    return sum(int(digit) for digit in str(n))


@BOOK.problem([((12, 18), 6), ((7, 5), 1)], lambda r: (r.randint(1, 400), r.randint(1, 400)), [(9, 9), (8, 4)])
def common_divisor(a: int, b: int) -> int:
    """Return the largest number that divides both of two positive numbers."""
    while b:
        a, b = b, a % b
    return a


@BOOK.problem([((7,), True), ((9,), False)], lambda r: (r.randint(0, 200),), [(0,), (1,), (2,), (169,)])
def is_prime(n: int) -> bool:
    """Return whether n is a prime number."""
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


@BOOK.problem([(("aaabcc",), "a3b1c2"), (("",), "")], lambda r: (text(r, "ab"),))
def run_lengths(s: str) -> str:
    """Return each run of one letter as the letter and the length of the run."""
    parts: list[str] = []
    i = 0
    while i < len(s):
        j = i
        while j < len(s) and s[j] == s[i]:
            j += 1
        parts.append(s[i] + str(j - i))
        i = j
    return "".join(parts)


@BOOK.problem([(([1, 2, 3, 4],), [1, 3, 6, 10]), (([],), [])], lambda r: (numbers(r),))
def running_totals(values: list[int]) -> list[int]:
    """Return for each place the sum of the numbers up to it, itself included."""
    result, so_far = [], 0
    for value in values:
        so_far += value
        result.append(so_far)
    return result


@BOOK.problem([(([[1, 2], [3, 4], [5, 6]],), [[1, 3, 5], [2, 4, 6]])], lambda r: (grid(r, range(9)),))
def transposed(rows: list[list[int]]) -> list[list[int]]:
    """Return a table with rows and columns exchanged."""
    return [list(column) for column in zip(*rows)]


@BOOK.problem([(("Hello", 1), "Ifmmp"), (("xyz", 3), "abc")], lambda r: (text(r, "abyzABYZ ,"), r.randint(0, 25)))
def shifted(s: str, by: int) -> str:
    """Return a text with every letter moved on in the alphabet, after z comes a; case stays, other signs stay."""
    result = ""
    for c in s:
        if c.isalpha():
            base = ord("a") if c.islower() else ord("A")
            c = chr((ord(c) - base + by) % 26 + base)
        result += c
    return result


@BOOK.problem([(([4, 1, 3],), 3.0), (([1, 2, 3, 4],), 2.5)], lambda r: (numbers(r, least=1),), compare="close")
def median(values: list[int]) -> float:
    """Return the middle number in order of size, or the mean of the two in the middle."""
    ordered, middle = sorted(values), len(values) // 2
    if len(values) % 2:
        return float(ordered[middle])
    return (ordered[middle - 1] + ordered[middle]) / 2


@BOOK.problem(
    [
        (
            (15,),
            ["1", "2", "fizz", "4", "buzz", "fizz", "7", "8", "fizz", "buzz", "11", "fizz", "13", "14", "fizzbuzz"],
        )
    ],
    lambda r: (r.randint(0, 60),),
)
def fizz_buzz(n: int) -> list[str]:
    """Return the numbers from 1 to n as texts, but "fizz" for multiples of 3, "buzz" of 5, "fizzbuzz" of both."""
    return [("fizz" * (k % 3 == 0) + "buzz" * (k % 5 == 0)) or str(k) for k in range(1, n + 1)]


@BOOK.problem([((["bb", "a", "cc", "a"],), ["a", "a", "bb", "cc"])], lambda r: (words(r, "ab"),), [([],)])
def by_length(items: list[str]) -> list[str]:
    """Return the words sorted by length; words of one length in alphabetical order."""
    return sorted(items, key=lambda word: (len(word), word))


@BOOK.problem([((10, 2), "1010"), ((255, 16), "ff")], lambda r: (r.randint(0, 5000), r.randint(2, 16)), [(0, 7)])
def in_base(n: int, base: int) -> str:
    """Return a number that is not negative in a base from 2 to 16, with digits 0-9 and a-f."""
    digits = ""
    while n:
        digits = "0123456789abcdef"[n % base] + digits
        n //= base
    return digits or "0"


@BOOK.problem([(([1, 2, 3, 4, 5], 2), [3, 4, 5, 1, 2]), (([], 3), [])], lambda r: (numbers(r), r.randint(0, 30)))
def rotated(values: list[int], by: int) -> list[int]:
    """Return the numbers moved to the left by so many places; what leaves on the left comes in on the right."""
    by = by % len(values) if values else 0
    return values[by:] + values[:by]


@BOOK.problem(
    [(("listen", "silent"), True), (("aab", "abb"), False)], lambda r: (text(r, "ab", 2, 4), text(r, "ab", 2, 4))
)
def same_letters(a: str, b: str) -> bool:
    """Return whether two texts have the same letters, each as often, in any order."""
    return sorted(a) == sorted(b)
