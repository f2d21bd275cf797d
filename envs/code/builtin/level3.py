"""Level 3: an algorithm with a name."""

from __future__ import annotations

from .making import Book, graph, grid, numbers, text

BOOK = Book(3)


@BOOK.problem(
    [(("([]{})",), True), (("(]",), False), (("",), True)],
    lambda r: ("".join(r.choice(["()", "[]", "([])", "{()}", "[()[]]", "(", "]"]) for _ in range(r.randint(1, 3))),),
    [("((",)],
)
def balanced(s: str) -> bool:
    """Return whether every bracket of (), [] and {} is closed by one of its kind, in the right order."""
    partners, opened = {")": "(", "]": "[", "}": "{"}, []
    for c in s:
        if c in "([{":
            opened.append(c)
        elif not opened or opened.pop() != partners[c]:
            return False
    return not opened


@BOOK.problem([(([-2, 1, -3, 4, -1, 2, 1, -5, 4],), 6), (([-3, -1],), -1)], lambda r: (numbers(r, -9, 9, 1),))
def best_stretch(values: list[int]) -> int:
    """Return the largest sum of neighbouring numbers, at least one of them."""
    best = here = values[0]
    for value in values[1:]:
        here = max(value, here + value)
        best = max(best, here)
    return best


@BOOK.problem([((360,), [2, 2, 2, 3, 3, 5]), ((7,), [7])], lambda r: (r.randint(2, 3000),), [(1,), (1021 * 3,)])
def prime_factors(n: int) -> list[int]:
    """Return the prime factors of a positive number in ascending order, each as often as it divides; none for 1."""
    result, d = [], 2
    while n > 1:
        if n % d == 0:
            result.append(d)
            n //= d
        else:
            d += 1
    return result


@BOOK.problem(
    [(([[1, 3], [2, 6], [8, 9]],), [[1, 6], [8, 9]]), (([],), [])],
    lambda r: ([[a, a + r.randint(0, 5)] for a in numbers(r, 0, 25)],),
)
def merged(intervals: list[list[int]]) -> list[list[int]]:
    """Return the intervals [from, to] with those joined that overlap or touch, in ascending order."""
    result: list[list[int]] = []
    for low, high in sorted(intervals):
        if result and low <= result[-1][1]:
            result[-1][1] = max(result[-1][1], high)
        else:
            result.append([low, high])
    return result


@BOOK.problem([((9,), "IX"), ((1994,), "MCMXCIV")], lambda r: (r.randint(1, 3999),), [(4,), (3999,)])
def roman(n: int) -> str:
    """Return a number from 1 to 3999 in Roman numerals."""
    result = ""
    for value, letters in (
        (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"),
        (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
    ):  # fmt: skip
        while n >= value:
            result += letters
            n -= value
    return result


@BOOK.problem(
    [(([1, 3, 5, 9], 5), 2), (([1, 3, 5, 9], 4), -1)],
    lambda r: (sorted(set(numbers(r, 0, 15))), r.randint(0, 15)),
    [([], 1)],
)
def place_of(ordered: list[int], wanted: int) -> int:
    """Return the place of a number in an ascending list without repeats, counted from 0; -1 where it is not there."""
    low, high = 0, len(ordered)
    while low < high:
        middle = (low + high) // 2
        if ordered[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low if low < len(ordered) and ordered[low] == wanted else -1


@BOOK.problem([(({"a": ["b"], "b": ["c"], "c": [], "d": []}, "a"), ["a", "b", "c"])], lambda r: (graph(r), "a"))
def reachable(edges: dict[str, list[str]], start: str) -> list[str]:
    """Return the nodes to which a way leads from a node, itself included, in alphabetical order."""
    seen, waiting = {start}, [start]
    while waiting:
        for node in edges[waiting.pop()]:
            if node not in seen:
                seen.add(node)
                waiting.append(node)
    return sorted(seen)


@BOOK.problem(
    [(([2, 7, 11, 15], 9), [0, 1]), (([1, 2], 9), [])], lambda r: (numbers(r, 0, 12), r.randint(0, 24)), [([], 0)]
)
def pair_with_sum(values: list[int], wanted: int) -> list[int]:
    """Return the places i < j of two numbers with a given sum: the smallest i, then the smallest j; [] for none."""
    for i in range(len(values)):
        for j in range(i + 1, len(values)):
            if values[i] + values[j] == wanted:
                return [i, j]
    return []


@BOOK.problem([(([[1, 2, 3], [4, 5, 6], [7, 8, 9]],), [1, 2, 3, 6, 9, 8, 7, 4, 5])], lambda r: (grid(r, range(10)),))
def spiral(rows: list[list[int]]) -> list[int]:
    """Return the numbers of a table in a spiral: along the top row, down the right side, and so on inwards."""
    result: list[int] = []
    left = [list(row) for row in rows]
    while left:
        result += left.pop(0)
        left = [list(row) for row in zip(*left)][::-1]
    return result


@BOOK.problem([(("abcabcbb",), 3), (("",), 0)], lambda r: (text(r, "abcd"),))
def longest_without_repeat(s: str) -> int:
    """Return the length of the longest stretch of a text in which no letter occurs twice."""
    best, start = 0, 0
    last: dict[str, int] = {}
    for i, c in enumerate(s):
        if last.get(c, -1) >= start:
            start = last[c] + 1
        last[c] = i
        best = max(best, i - start + 1)
    return best


@BOOK.problem(
    [(([[1, 2], [3, 4]], [[5, 6], [7, 8]]), [[19, 22], [43, 50]])],
    lambda r: tuple([[r.randint(-5, 5) for _ in range(3)] for _ in range(3)] for _ in range(2)),
)
def matrix_product(a: list[list[int]], b: list[list[int]]) -> list[list[int]]:
    """Return the product of two matrices."""
    return [[sum(x * y for x, y in zip(row, column)) for column in zip(*b)] for row in a]


@BOOK.problem([(([[1, 1, 0], [0, 0, 0], [0, 1, 1]],), 2), (([[0]],), 0)], lambda r: (grid(r),))
def islands(rows: list[list[int]]) -> int:
    """Return how many groups of ones there are; ones belong together when they are neighbours in a row or column."""
    left = {(i, j) for i, row in enumerate(rows) for j, value in enumerate(row) if value}
    count = 0
    while left:
        count += 1
        waiting = [left.pop()]
        while waiting:
            i, j = waiting.pop()
            for near in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                if near in left:
                    left.remove(near)
                    waiting.append(near)
    return count


@BOOK.problem(
    [((["3", "4", "+", "2", "*"],), 14), ((["5"],), 5)],
    lambda r: ([str(r.randint(1, 9)), str(r.randint(1, 9)), r.choice("+-*"), str(r.randint(1, 9)), r.choice("+-*")],),
)
def postfix(tokens: list[str]) -> int:
    """Return the value of a formula in postfix notation with +, - and *."""
    stack: list[int] = []
    for token in tokens:
        if token in ("+", "-", "*"):
            b, a = stack.pop(), stack.pop()
            stack.append(a + b if token == "+" else a - b if token == "-" else a * b)
        else:
            stack.append(int(token))
    return stack[0]


@BOOK.problem([(([3, 1, 2],), 2), (([1, 2, 3],), 0)], lambda r: (numbers(r, 0, 9),))
def inversions(values: list[int]) -> int:
    """Return how many pairs of places i < j have a larger number at i than at j."""
    return sum(values[i] > values[j] for i in range(len(values)) for j in range(i + 1, len(values)))


@BOOK.problem([((3,), [[1], [1, 1], [1, 2, 1]]), ((0,), [])], lambda r: (r.randint(0, 12),))
def pascal(n: int) -> list[list[int]]:
    """Return the first n rows of Pascal's triangle."""
    rows: list[list[int]] = []
    for _ in range(n):
        last = rows[-1] if rows else []
        rows.append([a + b for a, b in zip([0, *last], [*last, 0])] if last else [1])
    return rows


@BOOK.problem([((6,), 8), ((1,), 0)], lambda r: (r.randint(1, 60),), [(27,)])
def collatz(n: int) -> int:
    """Return how many steps lead from n to 1: half of an even number, three times an odd one plus 1.

    For n = 1 there are no steps.
    """
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps
