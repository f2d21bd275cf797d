"""`polyathlon info`: recipes, agents and environments in words."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import polyathlon
from polyathlon.agents.language.recipes import find_recipe, recipe_rows
from polyathlon.agents.language.recipes.table import cells, methods_markdown
from polyathlon.agents.parts.wiring import Schedule
from polyathlon.cli import main
from polyathlon.describing import describe, describe_recipe

from .comparison_names import ENV, HERE


def said(name):
    return "\n".join(describe(name))


def test_a_recipe_says_what_each_part_reads_and_who_makes_it():
    text = said("dapo")
    for part in (
        "reads turn (episodes), max_length (agent)",
        "reads reward (episodes), group (episodes)",
        "logp (model), old_logp (episodes), adv (advantage), mask (episodes)",
        "clip_high=0.28",
        "its coefficient is 0, so it is not evaluated",
        "overlong_buffer",
        "arXiv 2503.14476",
    ):
        assert part in text, part
    switched = "\n".join(describe_recipe(find_recipe("grpo", kl_coef=Schedule("linear", 0.1, 0.0))))
    assert "reads logp (model), reference_logp (side model)" in switched


@pytest.mark.parametrize("name", [row.name for row in recipe_rows()])
def test_every_recipe_can_be_described(name):
    assert f"{name}: " in said(f"language:{name}")


def test_rows_of_ones_own_with_noise_extra_fields_and_side_models_can_be_described():
    text = said("tests.agents.language.own_recipes:EVERYTHING")
    assert "draw (noise)" in text and "place (collector)" in text and "side models: process" in text
    assert "still: " in said(f"{HERE}:STILL")


def test_an_agent_says_its_options_with_defaults_and_meanings():
    text = said("sac")
    assert "buffer_size = 1000000" in text and "number of transitions kept" in text and "gamma = 0.99" in text
    assert "n_envs = None" in text and "acts in: box" in text  # of the base class too
    assert "polyathlon info language:ppo" in said("ppo")


def test_an_environment_says_what_it_shows_takes_and_pays():
    text = said("polyathlon/Reasoning-v0")
    for part in ("observes: Utterance", "takes: Utterance", "rewards:", "episode end:", "max_turns = 1", "train grpo"):
        assert part in text, part
    pendulum = said("Pendulum-v1")
    assert "time limit: 200" in pendulum and "-16.27" in pendulum and "g = 10.0" in pendulum
    assert "num_nodes = 50" in said("polyathlon/TSP-v0") and "minus the length of the edge" in said("polyathlon/TSP-v0")
    assert "takes: Utterance" in said(ENV)


@pytest.mark.parametrize("name", [record.name for record in polyathlon.algorithms()])
def test_every_agent_can_be_described(name):
    assert f"{name}: " in said(name) and "options" in said(name)


def test_unknown_names_suggest_the_nearest(capsys):
    assert main(["info", "grop"]) == 2
    assert "Did you mean 'grpo'" in capsys.readouterr().err
    assert main(["info", "Pendulm-v1"]) == 2
    assert main(["info", "grpo"]) == 0


def test_the_page_of_methods_has_every_row():
    text = methods_markdown(recipe_rows())
    for row in recipe_rows():
        assert f"| `{row.name}` |" in text and row.source in text
    name, episodes, rewards, advantage, weights, loss, regulariser, outer = cells(find_recipe("dapo"))
    assert name == "`dapo`" and "dynamic_sampling=10" in episodes and "`overlong` overlong_buffer=4" in rewards
    assert "center=group scale=group" in advantage and weights == "1" and "clip_high=0.28" in loss
    assert regulariser.startswith("kl 0 ") and outer == "–"
    path = Path(__file__).parents[2] / "scripts" / "_docs_hook.py"
    spec = importlib.util.spec_from_file_location("docs_hook", path)
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    page = hook.on_page_markdown((path.parents[1] / "docs" / "methods.md").read_text())
    assert text in page and ":::" not in page
