"""The commands that README and the documentation show: each is one that the command line takes, with names that exist."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import shlex
import tomllib
from pathlib import Path

import gymnasium as gym
import pytest

import polyathlon
from polyathlon.adaptation import entry_point
from polyathlon.agents.streams.environments import find_spec
from polyathlon.cli import build_parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = {record.name for record in polyathlon.algorithms()} | set(polyathlon.recipes())
PLACEHOLDER = re.compile(r"[A-Z]{2,}|\.\.\.|\*")  # of RUN, FILE, KEY=VALUE, `NAME ...`, runs/sac-*


def shown(text: str) -> list[str]:
    """Return the commands of a page: those of its blocks of shell, and those in the middle of a line."""
    blocks = re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    inline = re.findall(
        r"`((?:polyathlon|pip install|scripts/)[^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    )
    found = [*lines, *(" ".join(words.split()) for words in inline)]
    return [line.partition(" #")[0].strip() for line in found if line.strip() and not line.lstrip().startswith("#")]


COMMANDS = {
    command: page.relative_to(ROOT)
    for page in PAGES
    for command in shown(page.read_text())
    if command.startswith("polyathlon ")
}


def is_whole(command: str) -> bool:
    """Whether a command is one to type, and no mere name of it (`polyathlon plot`) or form (`polyathlon export RUN`)."""
    return not PLACEHOLDER.search(command) and "|" not in command and len(command.split()) > 3


def parsed(words: list[str]):
    """Parse a command; what the parser says of a wrong one is the failure."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            return build_parser().parse_args(words)
        except SystemExit as stop:
            assert stop.code == 0, said.getvalue()
    return None


def is_environment(name: str) -> bool:
    return bool(PLACEHOLDER.search(name)) or ":" in name or name in gym.registry


def test_there_are_commands():
    assert len(COMMANDS) > 60


def test_a_wrong_option_is_noticed():
    with pytest.raises(AssertionError, match=r"unknown option '--stepss 3'"):
        parsed(["train", "sac", "Pendulum-v1", "--stepss", "3"])


@pytest.mark.parametrize("command", list(filter(is_whole, COMMANDS)))
def test_a_command_is_taken_with_names_that_exist(command):
    options = parsed(shlex.split(command)[1:])
    if options is None:  # --help
        return
    names = list(getattr(options, "names", None) or [getattr(options, "agent_name", None)])
    for name in filter(None, names):
        assert name in NAMES or "/" in name or ":" in name, f"no agent or recipe {name!r}"
    on = getattr(options, "on", None) or getattr(options, "env_id", None) or []
    ids = [on] if isinstance(on, str) else list(on)
    for env_id in ids:
        assert is_environment(env_id), f"no environment {env_id!r}"
    for pair in getattr(options, "env", None) or []:
        for env_id in ids:
            if env_id in gym.registry and (made := entry_point(find_spec(env_id))) is not None:
                taken = inspect.signature(made).parameters
                word = pair.partition("=")[0].split(".")[0]
                is_open = any(each.kind is each.VAR_KEYWORD for each in taken.values())
                assert is_open or word in {*taken, "max_episode_steps", "opponent"}, f"{env_id} has no {word!r}"


def test_commands_with_placeholders_name_a_command_and_its_options():
    options = {}
    for action in build_parser()._actions:
        for name, parser in (action.choices or {}).items() if isinstance(action.choices, dict) else ():
            options[name] = {o for a in parser._actions for o in a.option_strings}
    for command, page in COMMANDS.items():
        words = command.split()[1:]
        if is_whole(command) or not words or PLACEHOLDER.search(words[0]):
            continue
        assert words[0] in options, f"{page}: {command}"
        given = {word.split("=")[0].split("|")[0].strip("[]") for word in words if word.strip("[").startswith("--")}
        assert given <= options[words[0]], f"{page}: {command}"


def test_extras_and_scripts_that_pages_name_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for page in PAGES:
        text = page.read_text()
        for listed in re.findall(r"pip install '(?:\.|polyathlon)\[([\w,-]+)\]'", text):
            assert set(listed.split(",")) <= set(extras), f"{page}: {listed}"
        for script in re.findall(r"\bscripts/[\w/]+\w(?:\.py)?", text):
            assert (ROOT / script).exists() or (ROOT / f"{script}.py").exists(), f"{page}: {script}"
