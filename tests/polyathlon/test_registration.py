"""The table of agents: read from the source, without importing an agent."""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

import polyathlon
from polyathlon import registration
from polyathlon.envs.errors import UsageError

ROOT = Path(__file__).parents[2]


def package_with(tmp_path, monkeypatch, text):
    """A package of one folder with one file, as `agents/` has them."""
    name = f"toy_{uuid.uuid4().hex}"
    folder = tmp_path / name / "family"
    folder.mkdir(parents=True)
    for place in (folder.parent, folder):
        (place / "__init__.py").write_text("")
    (folder / "toy.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_listing_imports_no_agent():
    code = (
        "import sys, polyathlon; names = [r.name for r in polyathlon.algorithms()]; "
        "assert {'sac', 'ppo', 'language'} <= set(names), names; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_each_record_is_the_class_below_its_decorator():
    for record in polyathlon.algorithms():
        path = ROOT.joinpath(*record.entry_point.partition(":")[0].split(".")[1:]).with_suffix(".py")
        below = re.search(rf'@register_agent\(\s*"{record.name}".*?^class (\w+)', path.read_text(), re.DOTALL | re.M)
        assert below is not None and below[1] == record.entry_point.partition(":")[2]
        assert record.family == path.parent.name


def test_an_agent_is_one_file(tmp_path, monkeypatch):
    """A class under its decorator is found without another edit, and not imported (it would fail)."""
    text = 'raise RuntimeError\n@register_agent("toy", family="family", summary="a toy")\nclass Toy:\n    pass\n'
    name = package_with(tmp_path, monkeypatch, text)
    (record,) = registration.read_agents(name)
    assert (record.name, record.entry_point) == ("toy", f"{name}.family.toy:Toy")
    assert (record.family, record.summary) == ("family", "a toy")


@pytest.mark.parametrize(
    ("words", "missing"),
    [('NAME, family="family", summary="a"', "name"), ('"toy", family="family", summary="a" + "b"', "summary")],
)
def test_an_expression_is_refused_with_file_and_line(tmp_path, monkeypatch, words, missing):
    name = package_with(tmp_path, monkeypatch, f"\n\n@register_agent({words})\nclass Toy:\n    pass\n")
    with pytest.raises(UsageError, match=rf"toy\.py, line 3: {missing} of @register_agent must be a literal text"):
        list(registration.read_agents(name))


@pytest.fixture
def table(monkeypatch):
    polyathlon.algorithms()
    monkeypatch.setattr(registration, "_ALGORITHMS", dict(registration._ALGORITHMS))


def test_the_decorator_registers_when_it_runs(table):
    @registration.register_agent("my_toy", family="mine", summary="a toy of my own")
    class Toy:
        pass

    assert "my_toy" in [record.name for record in polyathlon.algorithms()]
    registration.register_agent("my_toy", family="mine", summary="a toy of my own")(Toy)  # again: harmless


def test_a_taken_name_is_refused(table):
    with pytest.raises(UsageError, match=r"the name 'sac' belongs to polyathlon\.agents\.off_policy\.sac:SAC"):

        @registration.register_agent("sac", family="mine", summary="another")
        class Mine:
            pass

    with pytest.raises(UsageError, match="so my_package:Mine needs another one"):
        polyathlon.register_algorithm("ppo", "my_package:Mine", "mine", "another")
    polyathlon.register_algorithm("sac", "polyathlon.agents.off_policy.sac:SAC", "off_policy", "again")


def test_public_names_of_the_agents_come_from_the_table():
    from polyathlon import agents

    names = {record.entry_point.partition(":")[2] for record in polyathlon.algorithms()}
    assert names | {"Agent", "CausalLMPolicy", "register_agent"} <= set(dir(agents))
    assert agents.SAC.__name__ == "SAC"
    with pytest.raises(AttributeError, match="no attribute 'Sac'"):
        agents.Sac  # noqa: B018


def test_the_readme_names_every_agent():
    text = (ROOT / "README.md").read_text()
    for record in polyathlon.algorithms():
        assert f"`{record.entry_point.partition(':')[2]}`" in text, f"README.md does not name {record.name}"
