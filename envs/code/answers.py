"""What of an answer is the program: read as text alone, in time that grows with its length; only a sandbox compiles it."""

from __future__ import annotations
import __future__

import re
from typing import NamedTuple

from .problems import Problem

_PYTHON = {"python", "py", "py3", "python3"}
# a fence, also right after the mark of a list
_FENCE = re.compile(
    r"^([ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]{1,4})?)(`{3,}|~{3,})[ \t]*([\w+#.-]*)([^\n]*)$", re.MULTILINE
)
_FUTURE = re.compile(
    r"^from[ \t]+__future__[ \t]+import[ \t]+(?:\(([\w, \t\n]{1,400})\)|([\w, \t]{1,400}))", re.MULTILINE
)
_READS_INPUT = re.compile(r"\binput[ \t]*\(|\bstdin\b|\bopen[ \t]*\([ \t]*0\b|\bfileinput\b")
_INDENTED = re.compile(r"\A\s*?^[ \t]+\S", re.MULTILINE)
_CALLS = re.compile(r"\w[ \t]*\(")


class Block(NamedTuple):
    """A fenced block: the word after its fence in lower case, and what stands in it, without the fence's indentation."""

    language: str
    text: str


class Program(NamedTuple):
    """What is run for an answer: a program, and what is run where that is none (None: nothing)."""

    text: str
    otherwise: str | None = None


def fenced_blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a text as CommonMark has them; one that is never closed goes to the end.

    A fence inside a list is indented, and so is what stands in it: the fence's own indentation is taken off.
    """
    blocks: list[Block] = []
    opened: re.Match[str] | None = None
    for found in _FENCE.finditer(text):
        before, fence, language, rest = found.groups()
        if opened is None:
            if not (fence[0] == "`" and "`" in rest):  # ```such``` is no block
                opened = found
        elif not language and not before.strip() and fence[0] == opened[2][0] and len(fence) >= len(opened[2]):
            blocks.append(_block(opened, text[opened.end() + 1 : found.start()]))
            opened = None
    if opened is not None:
        blocks.append(_block(opened, text[opened.end() + 1 :]))
    return blocks


def _block(opened: re.Match[str], inside: str) -> Block:
    width = len(opened[1])
    if width:
        lines = inside.split("\n")
        inside = "\n".join(line[min(width, len(line) - len(line.lstrip(" \t"))) :] for line in lines)
    return Block(opened[3].lower(), inside)


def extract(text: str, problem: Problem | None = None) -> str:
    """Return the program in an answer; never raises.

    It is the last fenced block in Python, or of no named language, that does what is asked for: defines the function, or
    reads standard input. Where none does, it is the last block in Python, else the last block, else the whole text.

    Args:
        text: the answer.
        problem: what was asked; None: nothing is known of it.
    """
    blocks = fenced_blocks(text)
    if not blocks:
        return text
    python = [block.text for block in blocks if block.language in _PYTHON]
    if problem is not None:
        possible = [block.text for block in blocks if block.language in _PYTHON or not block.language]
        for pattern in _marks(problem):
            fitting = [block for block in possible if pattern.search(block)]
            if fitting:
                return fitting[-1]
    return python[-1] if python else blocks[-1].text


def _marks(problem: Problem) -> list[re.Pattern[str]]:
    """Return what tells the program of a problem from an example of its use or from its output, the surest first."""
    if problem.kind == "stdio":
        return [_READS_INPUT, _CALLS]
    name = re.escape(problem.entry)
    defines = rf"^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+{name}\b|^{name}[ \t]*(?::[^=\n]*)?=(?!=)"
    imports = rf"^[ \t]*(?:from[ \t]+\S+[ \t]+)?import[ \t][^\n]*\b{name}\b"
    # what goes on where the prompt stops is indented
    marks = [re.compile(f"{defines}|{imports}", re.MULTILINE)]
    return [*marks, _INDENTED] if problem.is_completion else marks


def program_of(problem: Problem, text: str) -> Program:
    """Return the program that an answer to a problem stands for; never raises.

    Where the prompt is the beginning of the program, an answer that defines the function by itself is a program, with
    what the prompt has above the function before it; any other goes on where the prompt stops.
    """
    program = extract(text, problem)
    if not problem.is_completion:
        return Program(program)
    if re.search(rf"^(async[ \t]+)?def[ \t]+{problem.entry}\b", program, re.MULTILINE):
        return Program(_with_future_first(preamble(problem), program), problem.prompt + program)
    return Program(problem.prompt + program)


def _with_future_first(head: str, program: str) -> str:
    """Put one text before a program whose `from __future__` must stay in front of everything."""
    found: list[str] = []

    def take(statement: re.Match[str]) -> str:
        names = [name.strip() for name in (statement[1] or statement[2]).split(",") if name.strip()]
        if not names or not set(names) <= set(__future__.all_feature_names):
            return statement[0]
        found.append(f"from __future__ import {', '.join(names)}\n")
        return "pass"

    moved = _FUTURE.sub(take, program)
    if not found:
        return f"{head}\n{program}"
    return "".join([*found, _FUTURE.sub(take, head), "\n", moved])


def preamble(problem: Problem) -> str:
    """Return what stands in a prompt above the function asked for: imports and helpers."""
    lines = problem.prompt.splitlines(keepends=True)
    starts = [i for i, line in enumerate(lines) if re.match(rf"(async[ \t]+)?def[ \t]+{problem.entry}\b", line)]
    return "".join(lines[: starts[-1]]) if starts else ""
