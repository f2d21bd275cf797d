"""What errors and warnings advise: every command, option, name, id and keyword in their texts exists.

The texts are read from the source, so that advice written tomorrow is walked too. That the advice also helps is run by the
tests of each place, and by tests/agents/test_remedies.py and tests/envs/test_remedies.py for those that had none.
"""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from pathlib import Path

import gymnasium as gym
import pytest

from polyathlon.cli import build_parser

ROOT = Path(__file__).parents[2]
FOLDERS = ("polyathlon", "agents", "envs", "wrappers")
# keywords of other packages' functions that messages name
FOREIGN = {
    "assign",  # torch's load_state_dict
    "vectorization_mode",  # gymnasium.make_vec
    "vector_kwargs",
    "shared_memory",  # gymnasium's AsyncVectorEnv
    "ctrl_cost_weight",  # Gymnasium's MuJoCo tasks
    "handle_timeout_termination",  # SB3's replay buffers
    "use_raw_page_output",  # BrowserGym's environments
    "action_mapping",
}
FOREIGN_OPTIONS = {"--no-deps"}  # pip's


def words_of(node: ast.AST | None) -> str:
    """Return the text of an expression, with {} for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(v.value if isinstance(v, ast.Constant) else "{}" for v in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return words_of(node.left) + words_of(node.right)
    if isinstance(node, ast.IfExp):
        return f"{words_of(node.body)} | {words_of(node.orelse)}"
    return ""


def files() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def messages() -> list[tuple[str, str]]:
    """Return (place, text) of everything that is raised, warned of, or made into an error."""
    found = []
    for path in files():
        for node in ast.walk(ast.parse(path.read_text())):
            calls = [node.exc] if isinstance(node, ast.Raise) else [node]
            for call in calls:
                if not isinstance(call, ast.Call):
                    continue
                name = getattr(call.func, "attr", getattr(call.func, "id", ""))
                if isinstance(node, ast.Raise) or name in ("warn", "warning", "UsageError", "UnknownArgument"):
                    found += [(f"{path.relative_to(ROOT)}:{call.lineno}", words_of(each)) for each in call.args]
    return sorted({(place, text) for place, text in found if text})


MESSAGES = messages()


def named(pattern: str) -> dict[str, str]:
    """Return what a pattern finds in the messages -> a place that says it."""
    return {word: place for place, text in MESSAGES for word in re.findall(pattern, text)}


def options_of(parser: object, found: set[str] | None = None) -> set[str]:
    """Return the options of a parser and of its commands."""
    found = set() if found is None else found
    for action in parser._actions:
        found |= set(action.option_strings)
        for below in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
            options_of(below, found)
    return found


def commands_of(parser: object) -> set[str]:
    return {name for action in parser._actions if isinstance(action.choices, dict) for name in action.choices}


def test_the_walk_reads_messages():
    """A walk that finds nothing proves nothing."""
    assert len(MESSAGES) > 1000
    assert len(named(r"(?<![\w-])(--[a-z][\w-]+)")) > 20 and len(named(r"(?<![\w.'-])([a-z_]\w+)=(?!=)")) > 100


def test_commands_and_options_that_messages_name_exist():
    parser = build_parser()
    commands = named(r"(?<![\w/.-])polyathlon ([a-z]+)\b")
    unknown = {word: place for word, place in commands.items() if word not in commands_of(parser)}
    options = named(r"(?<![\w-])(--[a-z][\w-]+)")
    unknown |= {word: place for word, place in options.items() if word not in options_of(parser) | FOREIGN_OPTIONS}
    assert not unknown


def test_names_of_the_package_that_messages_name_exist():
    missing = {}
    for dotted, place in named(r"(?<![\w./])(polyathlon(?:\.\w+)+)").items():
        parts = dotted.split(".")
        for length in range(len(parts), 0, -1):
            try:
                thing = importlib.import_module(".".join(parts[:length]))
            except ModuleNotFoundError:
                continue
            for name in parts[length:]:
                thing = getattr(thing, name, None)
            if thing is None:
                missing[dotted] = place
            break
    assert not missing


def test_ids_and_extras_that_messages_name_exist():
    missing = {
        word: place for word, place in named(r"(?<![\w/])(polyathlon/[A-Z]\w*-v\d)").items() if word not in gym.registry
    }
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    for several, place in named(r"polyathlon\[([\w,]+)\]").items():
        missing |= {extra: place for extra in several.split(",") if extra not in extras}
    assert not missing


def keywords_of_the_package() -> set[str]:
    """Return every name that a function or record of the package takes, and keys of dictionaries written out there."""
    found = set()
    for path in files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = node.args
                found |= {a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
            elif isinstance(node, ast.ClassDef):
                found |= {
                    each.target.id
                    for each in node.body
                    if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
                }
    return found


def test_keywords_that_messages_name_are_taken_by_something():
    known = keywords_of_the_package() | FOREIGN
    unknown = {word: place for word, place in named(r"(?<![\w.'-])([a-z_]\w+)=(?!=)").items() if word not in known}
    assert not unknown


@pytest.mark.parametrize("word", sorted(FOREIGN))
def test_foreign_words_are_said_somewhere(word):
    assert any(word in text for _, text in MESSAGES)
