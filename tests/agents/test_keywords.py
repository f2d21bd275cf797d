"""What agents say of their keywords to type checkers: the same as what their constructors take, and mypy finds a slip."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import polyathlon.agents
import polyathlon.wrappers
from polyathlon.agents.parts import keywords
from polyathlon.envs.errors import constructor_keywords
from polyathlon.registration import algorithms

ROOT = Path(__file__).parents[2]
OURS = [record.name for record in algorithms() if record.entry_point.startswith("polyathlon.")]
# words that one of the bases takes and the agent refuses or has no use for
INNER = {"_init_setup_model", "policy", "env"}
GIVEN = {"reward": {"recipe"}, "polar": {"recipe"}}  # which the agent gives its base itself


def declared(agent: type) -> set[str]:
    """The keywords that a checker knows: those spelled out, and those of the TypedDict behind **kwargs."""
    parameters = inspect.signature(agent.__init__).parameters.values()
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} - {"self"}
    rest = next((p.annotation for p in parameters if p.kind is p.VAR_KEYWORD), None)
    if rest is None:
        return named
    assert str(rest).startswith("Unpack["), f"{agent.__name__} hides its keywords from checkers: {rest}"
    words = getattr(keywords, str(rest).removeprefix("Unpack[").removesuffix("]"))
    further = set(words.__required_keys__ | words.__optional_keys__)
    assert not named & further
    return named | further


@pytest.mark.parametrize("name", OURS)
def test_checkers_know_every_keyword_that_an_agent_takes(name):
    agent = next(record for record in algorithms() if record.name == name).load()
    unread = set(getattr(agent, "unread", ()))
    assert declared(agent) - unread - INNER == constructor_keywords(agent) - INNER - GIVEN.get(name, set())


def test_editors_and_checkers_see_every_public_name():
    for module, names in (
        (polyathlon.agents, dir(polyathlon.agents)),
        (polyathlon.wrappers, dir(polyathlon.wrappers)),
    ):
        tree = ast.parse(Path(module.__file__).read_text())
        block = next(node for node in tree.body if isinstance(node, ast.If))
        shown = {alias.asname for node in block.body for alias in node.names}
        assert shown == set(names)
    assert {"train", "compare", "tune", "adapt"} <= set(dir(polyathlon))


def test_the_typed_words_can_be_read():
    for value in vars(keywords).values():
        if typing.is_typeddict(value):
            assert value.__doc__ and (value.__optional_keys__ or value.__base__)


@pytest.mark.slow
def test_mypy_finds_a_slip_in_a_user_s_script(tmp_path):
    pytest.importorskip("mypy")
    script = tmp_path / "script.py"
    script.write_text(
        "import polyathlon\n"
        "from polyathlon.agents import PPO, SAC, LanguageAgent\n"
        "from polyathlon.wrappers import TokenAction\n"
        'good = SAC("MlpPolicy", "Pendulum-v1", seed=3, n_steps=2, device="cpu")\n'
        'bad = SAC("MlpPolicy", "Pendulum-v1", seeed=3)\n'
        'worse = PPO("MlpPolicy", "CartPole-v1", n_step=3)\n'
        'third = LanguageAgent("tiny", None, sed=1)\n'
        'polyathlon.train("sac", "Pendulum-v1", 100, sead=1)\n'
        "reveal_type(good)\n"
        'polyathlon.trian("sac", "Pendulum-v1")\n'
        "from polyathlon.wrappers import TokenActions\n"
    )
    words = [
        sys.executable,
        "-m",
        "mypy",
        "--no-incremental",
        "--config-file",
        "",
        "--ignore-missing-imports",
        "--no-site-packages",
    ]
    environment = {"MYPYPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(
        [*words, str(script)], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("script.py")]
    for line, word in ((5, "seeed"), (6, "n_step"), (7, "sed"), (8, "sead")):
        assert any(
            each.startswith(f"script.py:{line}: error: Unexpected keyword argument") and f'"{word}"' in each
            for each in said
        ), said
    assert any(each.startswith('script.py:10: error: Module has no attribute "trian"') for each in said), said
    assert any(each.startswith("script.py:11: error: Module") and "TokenActions" in each for each in said), said
    assert not any(each.startswith("script.py:4:") for each in said)
    assert any("SAC" in each for each in said if each.startswith("script.py:9: note"))
