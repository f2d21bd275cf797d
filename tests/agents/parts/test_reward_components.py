"""Several rewards in one row: mixed with weights, or each normalised by itself; what does not apply is left out."""

from __future__ import annotations

import json
import math
import warnings

import pytest
import torch

from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.recipes import Recipe, check_recipe, find_recipe
from polyathlon.agents.parts.advantages import group_advantage
from polyathlon.agents.parts.reward_components import ComponentAdvantage, MixedComponents
from polyathlon.agents.parts.wiring import from_json, part, to_json
from polyathlon.envs.errors import UsageError
from polyathlon.envs.language import Verdict
from polyathlon.envs.probes import TableTask
from polyathlon.run_folder import RunConfig
from polyathlon.wrappers import TokenAction

NAN = math.nan
GROUP = torch.tensor([0, 0, 0, 1, 1, 1])
FORM, SUM = torch.tensor([1.0, 0, 0, 1, 1, 1]), torch.tensor([5.0, NAN, 3, NAN, NAN, NAN])
GROUPED = part("advantages:group_advantage", center="group", scale="group")


def row(**words):
    return Recipe("own", "own", "test", loss=part("surrogates:ppo_surrogate"), **words)


def test_a_mixture_replaces_the_reward_and_leaves_out_what_does_not_apply():
    reward = torch.tensor([1.0, 2, 3, 4, 5, 6])
    added = MixedComponents(weights=(("form", 0.5), ("sum", 2.0)), own=0.1)(reward, {"form": FORM, "sum": SUM})
    assert (reward + added).tolist() == pytest.approx([0.1 + 0.5 + 10, 0.2, 0.3 + 6, 0.4 + 0.5, 0.5 + 0.5, 0.6 + 0.5])
    alone = MixedComponents(weights=(("form", 1.0),))(reward, {"form": FORM, "sum": SUM})
    assert torch.equal(reward + alone, FORM)


def test_each_reward_is_normalised_in_its_groups_by_itself():
    found = ComponentAdvantage(advantage=GROUPED, weights=(("form", 1.0), ("sum", 3.0)))(
        {"form": FORM, "sum": SUM, "other": 100 * FORM}, GROUP, FORM
    )
    form = group_advantage(FORM, GROUP, scale="group")
    two = group_advantage(torch.tensor([5.0, 3.0]), torch.zeros(2, dtype=torch.int64), scale="group")
    assert found[1] == form[1]  # "sum" does not apply: neither 0 nor part of the mean
    torch.testing.assert_close(found[[0, 2]], (form[[0, 2]] + 3 * two) / 4)
    assert found[3:].tolist() == [0, 0, 0]  # equal rewards
    scaled = ComponentAdvantage(advantage=GROUPED)({"form": 1000 * FORM, "sum": SUM}, GROUP, FORM)
    plain = ComponentAdvantage(advantage=GROUPED)({"form": FORM, "sum": SUM}, GROUP, FORM)
    torch.testing.assert_close(scaled, plain, atol=1e-4, rtol=1e-4)
    assert float(plain[0]) == pytest.approx(float(form[0] + two[0]) / 2)


def test_one_reward_alone_is_the_plain_advantage_and_none_is_zero():
    assert torch.equal(
        ComponentAdvantage(advantage=GROUPED)({"form": FORM}, GROUP, FORM), group_advantage(FORM, GROUP, scale="group")
    )
    nothing = torch.full((6,), NAN)
    assert ComponentAdvantage(advantage=GROUPED)({"form": nothing}, GROUP, FORM).tolist() == [0] * 6
    assert ComponentAdvantage(advantage=GROUPED, weights=(("form", 1),))({}, GROUP, FORM).tolist() == [0] * 6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MixedComponents(weights=()), "pairs such as"),
        (lambda: MixedComponents(weights=(("form", "a"),)), "finite number"),
        (lambda: MixedComponents(weights=(("form", 1), ("form", 2))), "a name, once"),
        (lambda: MixedComponents(weights=(("fom", 1.0),))(FORM, {"form": FORM}), "Did you mean 'form'"),
        (lambda: ComponentAdvantage(advantage=3), "is a part"),
        (
            lambda: ComponentAdvantage(advantage=part("token_returns:token_gae")),
            "unknown field read by token_returns.*reward.*group",
        ),
        (
            lambda: ComponentAdvantage(advantage=part("advantages:group_advantage", centre="x")),
            "advantages:group_advantage.*center",
        ),
        (lambda: ComponentAdvantage(advantage=part("advantages:group_advantage", center="grup")), "group"),
    ],
)
def test_what_means_nothing_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_weights_and_advantages_stand_in_rows_in_files_and_on_the_command_line():
    each = row(advantage=part("reward_components:ComponentAdvantage", advantage=GROUPED, weights=None))
    mixed = row(
        advantage=GROUPED, rewards=(part("reward_components:MixedComponents", weights=(("form", 1.0),)),), minibatches=1
    )
    for recipe in (each, mixed):
        check_recipe(recipe)
        assert from_json(to_json(recipe)) == recipe
    changed = find_recipe(mixed, weights={"form": 0.5, "share": 2})
    assert dict(changed.rewards[0].options)["weights"] == (("form", 0.5), ("share", 2))
    with pytest.raises(UsageError, match="finite number"):
        check_recipe(find_recipe(mixed, weights={"form": "much"}))
    config = RunConfig("language", "x", 1, agent_kwargs={"recipe_kwargs": {"weights": (("form", 0.5),)}})
    read = RunConfig("language", "x", 1, agent_kwargs=json.loads(json.dumps(config.agent_kwargs)))
    config.refuse_changes(read, "run")  # a tuple of the call is a list of the file


def score(prompt, tokens):
    right = float(tokens[0] == 1)
    return Verdict(right == 1, 0.0, False, "", {"right": right, "even": float(tokens[0] % 2 == 0) if prompt else NAN})


@pytest.mark.parametrize("weights", [(("right", 1.0),), (("even", 1.0), ("right", 0.0001))])
def test_it_learns_what_is_weighed(weights):
    env = TokenAction(TableTask(2, 1, 4, score=score), model="table:2,1,4", max_new_tokens=1)
    recipe = row(advantage=GROUPED, rewards=(part("reward_components:MixedComponents", weights=weights),))
    agent = LanguageAgent("table:2,1,4", env, recipe=recipe, num_prompts=2, group_size=8, seed=0, learning_rate=0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the task's own reward is constant, and means nothing here
        agent.learn(16 * 20, log_interval=None)
    p = agent.policy.language_model.z.detach()[:, 0, 0].softmax(-1)
    if len(weights) == 1:
        assert bool((p[:, 1] > 0.8).all())
    else:
        assert float(p[1, 0] + p[1, 2]) > 0.8
    logged = agent.logger.name_to_value
    assert {"reward/right", "reward/right_std", "reward/even", "reward/even_std"} <= set(logged)
    assert 0 <= logged["reward/even"] <= 1  # a mean over the answers that it applies to


def test_a_task_without_named_parts_is_refused():
    env = TokenAction(TableTask(2, 1, 4, score=lambda x, y: 1.0), model="table:2,1,4", max_new_tokens=1)
    recipe = row(advantage=part("reward_components:ComponentAdvantage", advantage=GROUPED))
    with pytest.raises(UsageError, match="verdicts of this task have no named parts"):
        LanguageAgent("table:2,1,4", env, recipe=recipe, num_prompts=2, group_size=2).learn(1)
