"""Families of problems: a number makes a problem, so there are as many as numbers, on every level.

The function asked for is always called f and a right program is short, so that a small model can begin here.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from polyathlon.envs.code.problems import Problem

from .making import Draw, make_problem, numbers, text

EXAMPLES = 3


class Made(NamedTuple):
    """What a family makes of a number: arguments of f, what it returns in words, its program, its inputs, edge cases."""

    arguments: str
    words: str
    program: str
    draw: Draw
    edges: tuple[tuple[int, ...], ...] = ()


def _linear(r: random.Random) -> Made:
    a, b = r.randint(2, 9), r.randint(1, 20)
    return Made("x: int", f"x times {a}, plus {b}", f"return x * {a} + {b}", lambda g: (g.randint(-50, 50),))


def _pick(r: random.Random) -> Made:
    k = r.randint(0, 3)
    ordinal = ("first", "second", "third", "fourth")[k]
    return Made("v: list", f"the {ordinal} item of v", f"return v[{k}]", lambda g: (numbers(g, least=4),))


def _wrap(r: random.Random) -> Made:
    a, b = text(r, "abcxyz", 1, 3), text(r, "abcxyz", 1, 3)
    return Made("s: str", f'"{a}", s and "{b}" as one text', f"return {a!r} + s + {b!r}", lambda g: (text(g),))


def _compare(r: random.Random) -> Made:
    k, is_above = r.randint(-9, 9), r.random() < 0.5
    word, sign = ("larger", ">") if is_above else ("smaller", "<")
    edges = tuple((k + offset,) for offset in (-7, -3, -1, 0, 1, 3, 7))
    words, program = f"whether x is {word} than {k}", f"return x {sign} {k}"
    return Made("x: int", words, program, lambda g: (k + g.randint(-4, 4),), edges)


def _filtered(r: random.Random) -> Made:
    a, d = r.randint(2, 5), r.randint(2, 4)
    words = f"the sum of {a} times each number of v that is divisible by {d}"
    return Made("v: list", words, f"return sum({a} * x for x in v if x % {d} == 0)", lambda g: (numbers(g),))


def _pieces(r: random.Random) -> Made:
    low, high = sorted(r.sample(range(-9, 10), 2))
    a, b = r.randint(2, 5), r.randint(1, 9)
    words = f"x times {a} where x is below {low}, x minus {b} where it is above {high}, else 0"
    program = f"if x < {low}:\n    return {a} * x\nif x > {high}:\n    return x - {b}\nreturn 0"
    return Made("x: int", words, program, lambda g: (g.randint(-15, 15),))


def _letters(r: random.Random) -> Made:
    old, new = r.sample("abcde", 2)
    words = f"s with every {old} replaced by {new}, read backwards"
    return Made("s: str", words, f"return s.replace({old!r}, {new!r})[::-1]", lambda g: (text(g, "abcde"),))


def _recurrence(r: random.Random) -> Made:
    a, b, m = r.randint(1, 4), r.randint(1, 4), r.choice((97, 101, 1009))
    x, y = r.randint(0, 5), r.randint(1, 5)
    words = (
        f"number n of a sequence: number 0 is {x}, number 1 is {y}, each further one is {a} times the one before plus "
        f"{b} times the one before that, modulo {m}"
    )
    program = f"x, y = {x}, {y}\nfor _ in range(n):\n    x, y = y, ({a} * y + {b} * x) % {m}\nreturn x"
    return Made("n: int", words, program, lambda g: (g.randint(0, 60),))


_STEPS: tuple[Callable[[random.Random], tuple[str, str]], ...] = (
    lambda r: (lambda k: (f"keep the items above {k}", f"v = [x for x in v if x > {k}]"))(r.randint(-9, 5)),
    lambda r: (lambda k: (f"multiply every item by {k}", f"v = [x * {k} for x in v]"))(r.randint(2, 5)),
    lambda r: ("sort ascending", "v = sorted(v)"),
    lambda r: ("reverse the order", "v = v[::-1]"),
    lambda r: ("drop later repeats", "v = list(dict.fromkeys(v))"),
    lambda r: (lambda k: (f"keep the first {k} items", f"v = v[:{k}]"))(r.randint(2, 6)),
    lambda r: ("replace each item by its difference to the one before, the first by itself",
               "v = [x - y for x, y in zip(v, [0] + v)]"),
)  # fmt: skip


def _pipeline(r: random.Random) -> Made:
    steps = [step(r) for step in r.sample(_STEPS, 3)]
    words = "v after these steps: " + "; then ".join(step for step, _ in steps)
    program = "\n".join([line for _, line in steps] + ["return v"])
    return Made("v: list", words, program, lambda g: (numbers(g, most=6),))


def _counter(r: random.Random) -> Made:
    a, b, m = r.randint(1, 5), r.randint(2, 4), r.randint(7, 30)
    words = (
        f"the register after the letters of s: it begins at 0; a adds {a}, b multiplies by {b}, c sets it to 0 if it is "
        f"above {m}; other letters do nothing"
    )
    program = (
        f"n = 0\nfor c in s:\n    if c == 'a':\n        n += {a}\n    elif c == 'b':\n        n *= {b}\n"
        f"    elif c == 'c' and n > {m}:\n        n = 0\nreturn n"
    )
    return Made("s: str", words, program, lambda g: (text(g, "abcd", most=12),))


# family -> level, how a number makes a problem
FAMILIES: dict[str, tuple[int, Callable[[random.Random], Made]]] = {
    "linear": (1, _linear),
    "pick": (1, _pick),
    "wrap": (1, _wrap),
    "compare": (1, _compare),
    "filtered": (2, _filtered),
    "pieces": (2, _pieces),
    "letters": (2, _letters),
    "recurrence": (3, _recurrence),
    "pipeline": (3, _pipeline),
    "counter": (4, _counter),
}


def make(family: str, number: int) -> Problem:
    """Return problem `number` of a family; its name is "family/number".

    Args:
        family: a name of `FAMILIES`.
        number: which one, from 0.
    """
    level, maker = FAMILIES[family]
    name = f"{family}/{number}"
    made = maker(random.Random(name))
    body = "\n".join("    " + line for line in made.program.split("\n"))
    source = f"def f({made.arguments}):\n{body}\n"
    namespace: dict[str, Callable[..., object]] = {}
    exec(compile(source, f"<{name}>", "exec"), namespace)  # our own text, made above
    function = namespace["f"]
    rng = random.Random(f"{name} examples")
    shown = [made.draw(rng) for _ in range(EXAMPLES)]
    examples = [(arguments, function(*arguments)) for arguments in shown]
    question = f'def f({made.arguments}):\n    """Return {made.words}."""'
    return make_problem(name, question, source, function, examples, made.draw, made.edges, level, entry="f")
