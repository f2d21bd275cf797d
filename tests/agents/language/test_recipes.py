"""The table of recipes."""

from __future__ import annotations

import subprocess
import sys

import pytest

import polyathlon
from polyathlon.agents.language.recipes import find_recipe, recipe_names
from polyathlon.envs.errors import UsageError


def test_the_table_holds_the_published_methods():
    assert set(recipe_names()) >= {"sft", "reinforce", "rloo", "grpo", "dr_grpo", "dapo", "ppo"}
    assert polyathlon.recipes() == list(recipe_names())
    for name in recipe_names():
        row = find_recipe(name)
        assert row.name == name and row.summary and row.source


def test_fields_change_by_name_and_the_table_stays():
    assert find_recipe("grpo", group_size=4, kl_coef=0.04).penalty("kl").coefficient == 0.04
    assert find_recipe("grpo").penalty("kl").coefficient == 0.0
    own = find_recipe("dapo", clip_high=0.5)
    assert dict(find_recipe(own).loss.options)["clip_high"] == 0.5


def test_listing_imports_nothing_heavy():
    code = (
        "import sys, polyathlon; polyathlon.recipes(); assert not {'torch', 'transformers'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("grop", {}, "grpo"),
        ("grpo", {"kl_coeff": 1}, "kl_coef"),
        ("grpo", {"group_size": 0}, "group_size.* must be a positive integer"),
        ("grpo", {"name": "mine"}, "unknown word of the recipe .grpo. .name."),
    ],
)
def test_mistakes_are_named(name, changes, words):
    with pytest.raises(UsageError, match=words):
        find_recipe(name, **changes)


def test_the_command_line_prints_name_summary_and_source(capsys):
    from polyathlon.cli import main

    main(["recipes"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(recipe_names())
    assert any(line.startswith("dapo") and "arXiv 2503.14476" in line and "token mean" in line for line in lines)


def test_a_registered_row_has_its_name_everywhere_and_a_path_names_one_too():
    from polyathlon.adaptation import resolve_agent

    from .own_recipes import HERE, SETS

    polyathlon.register_recipe(SETS)
    polyathlon.register_recipe(SETS)
    assert "sets" in polyathlon.recipes() and find_recipe("sets") is SETS
    assert resolve_agent("sets")[1] == {"recipe": "sets"}
    assert resolve_agent(f"{HERE}:SETS")[1] == {"recipe": f"{HERE}:SETS"}
    with pytest.raises(UsageError, match="is a row"):
        polyathlon.register_recipe("sets")
