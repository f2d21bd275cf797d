"""Level 4: dynamic programming, search, small languages."""

from __future__ import annotations

from .making import Book, graph, grid, numbers, text

BOOK = Book(4)


@BOOK.problem([(("kitten", "sitting"), 3), (("", "ab"), 2)], lambda r: (text(r, "abc", most=8), text(r, "abc", most=8)))
def edit_distance(a: str, b: str) -> int:
    """Return the least number of letters to insert, delete or replace that turns one text into the other."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


@BOOK.problem([(([10, 9, 2, 5, 3, 7, 101, 18],), 4), (([],), 0)], lambda r: (numbers(r, 0, 15),))
def longest_rise(values: list[int]) -> int:
    """Return the length of the longest strictly ascending subsequence; left-out numbers may lie between."""
    best: list[int] = []
    for i, value in enumerate(values):
        best.append(1 + max((best[j] for j in range(i) if values[j] < value), default=0))
    return max(best, default=0)


@BOOK.problem(
    [(([2, 3, 4], [3, 4, 5], 5), 7), (([], [], 4), 0)],
    lambda r: (lambda w: (w, [r.randint(1, 20) for _ in w], r.randint(0, 20)))(numbers(r, 1, 9, most=7)),
)
def knapsack(weights: list[int], values: list[int], capacity: int) -> int:
    """Return the largest total value of items whose total weight is at most the capacity; each item once."""
    best = [0] * (capacity + 1)
    for weight, value in zip(weights, values):
        for room in range(capacity, weight - 1, -1):
            best[room] = max(best[room], best[room - weight] + value)
    return best[capacity]


@BOOK.problem(
    [(([1, 2, 5], 11), 3), (([2], 3), -1)],
    lambda r: (sorted(set(numbers(r, 1, 12, 1, 4))), r.randint(0, 40)),
    [([3], 0)],
)
def fewest_coins(coins: list[int], amount: int) -> int:
    """Return the least number of coins that make up an amount, each coin as often as needed; -1 if none do."""
    best = [0] + [amount + 1] * amount
    for total in range(1, amount + 1):
        for coin in coins:
            if coin <= total:
                best[total] = min(best[total], best[total - coin] + 1)
    return best[amount] if best[amount] <= amount else -1


@BOOK.problem(
    [(("2 + 3 * 4",), 14), (("(2 + 3) * 4",), 20)],
    lambda r: (
        f"{r.randint(0, 9)} {r.choice('+-*')} ({r.randint(0, 9)} {r.choice('+-*')} {r.randint(0, 9)}) {r.choice('+-*')} {r.randint(0, 9)}",
    ),
    [("7",), ("((8))",), ("10 - 2 - 3",)],
)
def calculate(formula: str) -> int:
    """Return the value of a formula of whole numbers, +, -, * and brackets; * binds more tightly.

    The formula is correct; blanks have no meaning.
    """
    tokens = formula.replace("(", " ( ").replace(")", " ) ")
    for sign in "+-*":
        tokens = tokens.replace(sign, f" {sign} ")
    left = tokens.split()[::-1]

    def atom() -> int:
        token = left.pop()
        if token != "(":
            return int(token)
        value = addition()
        left.pop()
        return value

    def product() -> int:
        value = atom()
        while left and left[-1] == "*":
            left.pop()
            value *= atom()
        return value

    def addition() -> int:
        value = product()
        while left and left[-1] in "+-":
            value = value + product() if left.pop() == "+" else value - product()
        return value

    return addition()


@BOOK.problem([((4,), 2), ((1,), 1)], lambda r: (r.randint(1, 7),), [(2,), (6,)])
def queens(n: int) -> int:
    """Return in how many ways n queens stand on a board of n by n squares so that none attacks another."""

    def place(row: int, columns: frozenset[int], up: frozenset[int], down: frozenset[int]) -> int:
        if row == n:
            return 1
        free = [c for c in range(n) if c not in columns and row + c not in up and row - c not in down]
        return sum(place(row + 1, columns | {c}, up | {row + c}, down | {row - c}) for c in free)

    return place(0, frozenset(), frozenset(), frozenset())


@BOOK.problem(
    [(([[0, 0, 1], [1, 0, 1], [1, 0, 0]],), 4), (([[0, 1], [1, 0]],), -1)],
    lambda r: (grid(r, (0, 0, 0, 1)),),
    [([[0]],), ([[1]],)],
)
def shortest_way(rows: list[list[int]]) -> int:
    """Return the least number of steps from the upper left to the lower right corner over zeros; -1 if there is no way.

    A step leads to a neighbour in the row or the column. Where a corner is 1 there is no way.
    """
    height, width = len(rows), len(rows[0])
    if rows[0][0] or rows[-1][-1]:
        return -1
    seen, here, steps = {(0, 0)}, [(0, 0)], 0
    while here:
        if (height - 1, width - 1) in here:
            return steps
        following = []
        for i, j in here:
            for a, b in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                if 0 <= a < height and 0 <= b < width and not rows[a][b] and (a, b) not in seen:
                    seen.add((a, b))
                    following.append((a, b))
        here, steps = following, steps + 1
    return -1


@BOOK.problem(
    [(({"a": ["b"], "b": [], "c": ["a"]},), ["c", "a", "b"]), (({"a": ["b"], "b": ["a"]},), [])],
    lambda r: (graph(r, part=0.2),),
)
def in_order(edges: dict[str, list[str]]) -> list[str]:
    """Return the nodes so that every edge leads from an earlier to a later one; [] where that is impossible.

    Of several nodes that may come next, the first one in the alphabet does.
    """
    entering = dict.fromkeys(edges, 0)
    for targets in edges.values():
        for node in targets:
            entering[node] += 1
    result: list[str] = []
    while True:
        free = sorted(node for node, count in entering.items() if count == 0)
        if not free:
            return result if len(result) == len(edges) else []
        result.append(free[0])
        del entering[free[0]]
        for node in edges[free[0]]:
            entering[node] -= 1


@BOOK.problem([(("abcde", "ace"), 3), (("abc", "xyz"), 0)], lambda r: (text(r, "abc"), text(r, "abc")))
def common_subsequence(a: str, b: str) -> int:
    """Return the length of the longest text whose letters occur in both texts in this order, not always as neighbours."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@BOOK.problem(
    [(([1, 2, 3],), [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]])],
    lambda r: (numbers(r, 0, 5, most=4),),
    [([],), ([1, 1],)],
    compare="members",
)
def arrangements(values: list[int]) -> list[list[int]]:
    """Return all different orders of the numbers, in any order."""
    found: list[list[int]] = [[]]
    for _ in values:
        longer = []
        for one in found:
            left = list(values)
            for value in one:
                left.remove(value)
            longer += [[*one, value] for value in dict.fromkeys(left)]
        found = longer
    return found


@BOOK.problem([(([0, 1, 0, 2, 1, 0, 1, 3, 2, 1, 2, 1],), 6), (([3, 0, 2],), 2)], lambda r: (numbers(r, 0, 6),))
def rain(heights: list[int]) -> int:
    """Return how much water stays between walls of these heights and width 1 after rain."""
    kept = 0
    for i, height in enumerate(heights):
        kept += max(0, min(max(heights[: i + 1]), max(heights[i:])) - height)
    return kept


@BOOK.problem(
    [(("aab", "c*a*b"), True), (("aa", "a"), False)],
    lambda r: (text(r, "ab", most=4), "".join(r.choice("ab.") + r.choice(["", "*"]) for _ in range(r.randint(0, 4)))),
    [("", ".*"), ("", "")],
)
def matches(s: str, pattern: str) -> bool:
    """Return whether a pattern describes a whole text: . is any letter, x* any number of x, other letters themselves."""

    def fits(rest: str, p: str) -> bool:
        if not p:
            return not rest
        first = bool(rest) and p[0] in (rest[0], ".")
        if p[1:2] == "*":
            return fits(rest, p[2:]) or (first and fits(rest[1:], p))
        return first and fits(rest[1:], p[1:])

    return fits(s, pattern)


@BOOK.problem([(({"a": ["b"], "b": ["a"], "c": []},), [["a", "b"], ["c"]])], lambda r: (graph(r, 6),))
def components(edges: dict[str, list[str]]) -> list[list[str]]:
    """Return the groups of nodes of a directed graph from each of which a way leads to every other one of the group.

    Nodes of a group are in alphabetical order, and so are the groups.
    """
    reach = {}
    for start in edges:
        seen, waiting = {start}, [start]
        while waiting:
            for node in edges[waiting.pop()]:
                if node not in seen:
                    seen.add(node)
                    waiting.append(node)
        reach[start] = seen
    groups = {tuple(sorted(b for b in edges if b in reach[a] and a in reach[b])) for a in edges}
    return [list(group) for group in sorted(groups)]


@BOOK.problem([(([7, 1, 5, 3, 6, 4],), 7), (([5, 4],), 0)], lambda r: (numbers(r, 1, 15),))
def trading(prices: list[int]) -> int:
    """Return the largest profit of buying and selling one piece any number of times, never owning two."""
    return sum(max(0, after - before) for before, after in zip(prices, prices[1:]))  # noqa: RUF007


@BOOK.problem([(([1, 5, 11, 5],), True), (([1, 2, 5],), False)], lambda r: (numbers(r, 1, 9, 1, 8),), [([2],)])
def can_halve(values: list[int]) -> bool:
    """Return whether the positive numbers can be put in two groups with the same sum."""
    half, odd = divmod(sum(values), 2)
    sums = {0}
    for value in values:
        sums |= {value + other for other in sums}
    return not odd and half in sums


@BOOK.problem(
    [(([["push", 2], ["push", 3], ["add"], ["copy"], ["multiply"]],), [25]), (([["add"]],), [])],
    lambda r: (
        [
            ["push", r.randint(0, 9)],
            ["push", r.randint(0, 9)],
            *([r.choice(["add", "multiply", "copy", "drop"])] for _ in range(r.randint(0, 5))),
        ],
    ),
)
def stack_machine(orders: list[list]) -> list[int]:
    """Return the stack, top last, after orders to an empty one.

    ["push", n]; ["copy"] or ["drop"] the top; ["add"] or ["multiply"] the two on top into one. An order for which it
    holds too little ends the work.
    """
    stack: list[int] = []
    needed = {"push": 0, "copy": 1, "drop": 1, "add": 2, "multiply": 2}
    for name, *rest in orders:
        if len(stack) < needed[name]:
            break
        if name == "push":
            stack.append(rest[0])
        elif name == "copy":
            stack.append(stack[-1])
        else:
            top = stack.pop()
            if name == "add":
                stack[-1] += top
            elif name == "multiply":
                stack[-1] *= top
    return stack
