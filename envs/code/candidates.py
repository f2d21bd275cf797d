"""Programs to choose from: a right one, and wrong ones that look like it."""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Iterator

from .problems import Problem

COUNT = 8
_OTHER_OPERATOR: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.BitOr: ast.BitAnd,
}
_OTHER_NAME = {"min": "max", "max": "min", "sorted": "list", "sum": "len", "any": "all", "all": "any", "abs": "int"}
_TRIVIAL = ("None", "0", "''", "[]", "True", "1", "False", "-1", "{}", "2")


def candidates(problem: Problem, count: int = COUNT) -> list[str]:
    """Return programs among which one is right, in an order that depends on the problem's name alone.

    The wrong ones are the right one with an operator, a number or a function replaced, or a function that returns a
    constant; a replacement may by chance change nothing.

    Args:
        problem: a problem whose solution is known.
        count: number of programs.

    Returns:
        `count` different programs; none where no solution is known.
    """
    if problem.solution is None:
        return []
    rng = random.Random(f"{problem.name} candidates")
    chosen = [problem.solution]
    mutated = list(_mutations(problem.solution))
    rng.shuffle(mutated)
    for source in (*mutated, *_constants(problem)):
        if len(chosen) == count:
            break
        if source not in chosen:
            chosen.append(source)
    rng.shuffle(chosen)
    return chosen


def _constants(problem: Problem) -> Iterator[str]:
    for value in _TRIVIAL:
        yield f"def {problem.entry}(*arguments):\n    return {value}\n" if problem.entry else f"print({value})\n"


def _mutations(source: str) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except SyntaxError:  # for another version of Python, perhaps: the others are functions that return a constant
        return
    for i, node in enumerate(ast.walk(tree)):
        if not isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp | ast.Compare | ast.Constant | ast.Name):
            continue
        changed = copy.deepcopy(tree)
        place = next(other for j, other in enumerate(ast.walk(changed)) if j == i)
        if _change(place):
            yield ast.unparse(changed) + "\n"


def _change(node: ast.AST) -> bool:
    """Replace what a node does by something near; tell whether there is something."""
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in _OTHER_OPERATOR:
        node.op = _OTHER_OPERATOR[type(node.op)]()
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in _OTHER_OPERATOR:
        node.ops[0] = _OTHER_OPERATOR[type(node.ops[0])]()
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        node.value += 1
    elif isinstance(node, ast.Constant) and type(node.value) is str and 0 < len(node.value) < 20:
        node.value = node.value[:-1]
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in _OTHER_NAME:
        node.id = _OTHER_NAME[node.id]
    else:
        return False
    return True
