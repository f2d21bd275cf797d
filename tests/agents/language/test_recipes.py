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
