import subprocess
import sys
from pathlib import Path

import pytest

from polyathlon.agents.parts.fields import FIELDS, describe_reads, fields_markdown, find_field, role_field
from polyathlon.envs.errors import UsageError

RECIPE = """tokens attention mask old_logp token_reward reward group length correct components finished task text turn side
score on_policy logp entropy value old_value old_entropy old_full_logp full_logp adv returns weight max_length progress"""
ENGINE = (
    "obs action reward next_obs discount action_mask old_logp old_value adv returns env_returns progress score "
    "preferred"
)


def test_every_field_of_both_seams_is_in_the_table_and_no_other():
    assert {name for name, row in FIELDS.items() if row.recipe_shape} == set(RECIPE.split())
    assert {name for name, row in FIELDS.items() if row.engine_shape} == set(ENGINE.split())


def test_a_field_says_who_makes_it():
    assert all(row.name.isidentifier() and row.meaning and row.made_by for row in FIELDS.values())
    assert find_field("discount").engine_shape == "[B]" and find_field("discount").recipe_shape is None


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("teacher_logp", ("teacher", "logp")),
        ("teacher_full_logp", ("teacher", "full_logp")),
        ("process_score", ("process", "score")),
        ("old_logp", None),
        ("full_logp", None),
        ("logp", None),
        ("_logp", None),
        ("speed", None),
    ],
)
def test_fields_of_side_models_are_recognised(name, split):
    assert role_field(name) == split


def test_a_side_models_field_is_described():
    field = find_field("reference_logp")
    assert (field.made_by, field.recipe_shape, field.engine_shape) == ("side model", "[N, T]", None)
    assert "'reference'" in field.meaning


def test_an_unknown_field_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="unknown field 'next_ob'. Did you mean 'next_obs'"):
        find_field("next_ob")


def critic(critic, obs, reward, goal, *, gamma):
    return critic, obs, reward, goal, gamma


def test_what_a_method_reads_is_told_with_its_makers():
    made = {"critic": "network", "backup": "published by target"}
    lines = describe_reads({"critic": critic}, {"critic": {"goal": "backup"}}, made)
    assert lines == [
        "critic reads critic (network), obs (minibatch), reward (episodes, minibatch), "
        "backup (published by target); options: gamma"
    ]
    with pytest.raises(UsageError, match="unknown field 'goal'"):
        describe_reads({"critic": critic}, made=made)


def test_the_table_for_the_documentation_has_a_line_for_each_field():
    lines = fields_markdown().splitlines()
    assert len(lines) == len(FIELDS) + 2 and all(line.count("|") == 6 for line in lines)


def test_the_table_imports_no_torch():
    code = "import sys, polyathlon.agents.parts.fields; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_documentation_has_the_table():
    assert fields_markdown() in (Path(__file__).parents[3] / "docs/extend/method.md").read_text()
