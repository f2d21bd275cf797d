"""Rows of pairs and scores in whole updates: references that are given, what is logged, coefficients that follow, rows of one number."""

from __future__ import annotations

import math

import pytest
import torch

from polyathlon.agents.language.recipe_wiring import wire
from polyathlon.agents.language.recipes import find_recipe
from polyathlon.agents.language.updates import Update
from polyathlon.agents.parts.preferences import dpo
from polyathlon.envs.errors import UsageError

from .test_every_recipe import TABLE, iterate, make


def first_update(agent):
    agent._setup_learn(1)
    agent._before_training()
    return Update(agent, wire(agent.recipe), agent.collect_episodes())


def test_a_reference_may_be_given():
    agent = make("dpo", side_models={"reference": TABLE})
    update = first_update(agent)
    update._before()
    fields = update.fields
    # a new table finds all five tokens equally likely
    own = fields["reference_logp"][fields["mask"] > 0]
    assert own.tolist() == pytest.approx([-math.log(5)] * len(own), abs=1e-6)
    assert "reference" not in agent.side_models.copies
    reading = update._read(fields)
    loss, watched = update._loss(fields, reading)
    rows = [fields[name] for name in ("reference_logp", "mask", "side", "group", "label")]
    torch.testing.assert_close(loss, dpo(reading.logp, *rows, beta=0.1))
    assert float(watched["margin"]) != 0
    plain = make("dpo")
    plain_update = first_update(plain)
    plain_update.run()
    assert float(plain_update.seen[0]["margin"]) == 0 and float(plain_update.seen[0]["policy_loss"]) == pytest.approx(
        math.log(2)
    )
    with pytest.raises(UsageError, match="which the recipe does not take"):
        make("dpo", side_models={"teacher": TABLE})


def test_what_an_update_of_pairs_logs():
    agent = iterate(make("dpo"), 3)
    logged = agent.logger.name_to_value
    assert logged["train/margin"] > 0 and logged["train/accuracy"] > 0.5
    assert logged["train/logp_chosen"] < 0 and logged["train/logp_rejected"] < 0
    assert "train/did_entropy" not in logged and "train/approx_kl" not in logged


@pytest.mark.parametrize("name", ["copg_online", "hypo"])
def test_the_entropy_of_the_differential_information_is_logged_where_the_policy_wrote(name):
    logged = iterate(make(name), 2).logger.name_to_value
    assert logged["train/did_entropy"] > 0 and logged["train/did_effective_samples"] >= 1


def test_imitation_beside_dpo_is_a_coefficient():
    agent = make("dpo", recipe_kwargs={"sft_coef": 2.0})
    update = first_update(agent)
    update._before()
    loss, watched = update._loss(update.fields, update._read(update.fields))
    assert float(loss) == pytest.approx(float(watched["policy_loss"] + 2 * watched["sft_loss"]), abs=1e-6)
    assert [name for name, _, _ in wire(find_recipe("dpo")).penalties] == []


def test_the_coefficient_of_rlhf_follows_and_resumes(tmp_path):
    agent = iterate(make("rlhf_ppo", recipe_kwargs={"target": 1e-4, "horizon": 10}), 3)
    part = agent._wiring.objects["rewards.1"]
    assert part.beta not in (0.05, 0.0)
    again = type(agent).resume(agent.checkpoint(tmp_path / "run.pt"), agent.env)
    assert again._wiring.objects["rewards.1"].beta == part.beta


def test_rewards_of_rlhf_are_the_tasks_and_the_divergence():
    agent = iterate(make("rlhf_ppo"), 2)
    update = Update(agent, wire(agent.recipe), agent.collect_episodes())
    before = update.fields["reward"].clone()
    agent.side_models.start(agent.policy.language_model, ("reference",))
    update._before()
    fields = update.fields
    kl = ((fields["old_logp"] - fields["reference_logp"]) * fields["mask"]).sum(1)
    torch.testing.assert_close(fields["reward"], before - 0.05 * kl, atol=1e-6, rtol=0)
    torch.testing.assert_close(fields["token_reward"].sum(1), fields["reward"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("dpo", {"label_smoothing": 0.5}, "from 0 to 0.4999"),
        ("dpo", {"divergence": "jss"}, "Did you mean 'js'"),
        ("ipo", {"tau": 0.0}, "at least 1e-09"),
        ("copg", {"beta": 0.0}, "at least 1e-09"),
        ("copg_online", {"group_size": 1}, "compares the answers of a group"),
        ("best_of_n", {"group_size": 1}, "compares the answers of a group"),
        ("implicit_sft", {"link": "chi"}, "Did you mean 'chi2'"),
        ("rlhf_ppo", {"horizon": 0}, "positive integer"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(name, words, message):
    with pytest.raises(UsageError, match=message):
        make(name, recipe_kwargs=words, group_size=None)
