"""The seam of language methods: rows, wiring, order, micro batches, side models, state, windows, refusals."""

from __future__ import annotations

import contextlib
import dataclasses
import math

import numpy as np
import pytest
import torch

import polyathlon
from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.compared import component_metrics
from polyathlon.agents.language.episodes import Episode, collate
from polyathlon.agents.language.given_models import load_given
from polyathlon.agents.language.noise import make_noise
from polyathlon.agents.language.recipe_wiring import wire
from polyathlon.agents.language.recipes import Penalty, Recipe, SideModel, check_recipe, find_recipe, recipe_rows
from polyathlon.agents.language.recipes.options import option_names, slots
from polyathlon.agents.language.rollout import Rollout
from polyathlon.agents.language.side_models import SideModels
from polyathlon.agents.language.updates import Update, add_reward
from polyathlon.agents.parts.fields import find_field
from polyathlon.agents.parts.wiring import Noise, Part, Schedule, Target, find_part, from_json, part, reads, to_json
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers import TokenAction

from .own_recipes import ADVANTAGE, ENTROPY, EVERYTHING, HERE, SETS
from .test_every_recipe import TABLE, Probe, iterate, make
from .test_language_agent import letters, weights
from .test_recorded_gradients import record_recipes, relative_gap
from .test_reference import evens

ROWS = recipe_rows()
# one of each kind of loss and collector; all rows run on a table in the conformance tests
KINDS = (
    "sft",
    "reinforce",
    "rloo",
    "grpo",
    "dr_grpo",
    "dapo",
    "ppo",
    "gspo",
    "clip_cov",
    "disco",
    "sets",
    "entropy",
)
NLL = part("surrogates:negative_logp")
TEACHER = SideModel("teacher", start="given")


def row(**words):
    return Recipe("own", "own", "test", **{"loss": NLL, **words})


def own_names(recipe):
    """Fields that a row itself makes: its noise, and what its collector fills in."""
    return {name for name, _ in recipe.noise} | set(getattr(find_part(recipe.collect.path), "extra_fields", {}))


def judged():
    """The recorded episodes with what rows may read besides: verdicts with parts, rewards of 0 and 1, tasks and texts."""
    episodes = record_recipes.read_episodes()
    for i, episode in enumerate(episodes):
        right = i % 3 != 1 if episode.group else i % 4 == 0
        last = max(t for t, own in enumerate(episode.written) if own)
        episode.rewards = [0.0] * len(episode.ids)
        episode.rewards[last] = float(right)
        episode.is_correct, episode.task, episode.text = right, episode.group, str(i % 3)
        parts = {"right": right, "form": i % 2, "format": i % 2, "verdict": right, "suggestion": i % 3 == 0}
        episode.verdict = {"correct": right, "parts": {name: float(value) for name, value in parts.items()}}
        episode.finished, episode.version = i % 5 != 0, [0] * len(episode.ids)
    return episodes


def agent_for(recipe):
    """The recorded agent, with a model for each role that the row wants to be given."""
    agent = record_recipes.make_agent()
    row = find_recipe(recipe)
    given = {m.role: load_given(m, "tiny", agent.model_name, 1, agent.device) for m in row.models if m.start == "given"}
    reference = agent._reference
    agent.side_models = SideModels(row.models, given)
    agent._reference = reference
    return agent


def gradient(recipe, micro=None, episodes=None, agent=None, **words):
    agent = agent or record_recipes.make_agent()
    agent.micro_batch = micro
    found = []

    def step(*_, **__):
        found.append(
            torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in trained])
        )

    trained = [p for p in agent.policy.parameters() if p.requires_grad]
    agent.policy.optimizer.step = step
    once = {"n_epochs": 1, "minibatches": 1, "max_grad_norm": 1e9} | words
    agent.update(episodes or record_recipes.read_episodes(), find_recipe(recipe, **once))
    return torch.stack(found).sum(0).numpy()


# ------------------------------------------------------------------------------------------------------ rows


@pytest.mark.parametrize("recipe", ROWS, ids=[r.name for r in ROWS])
def test_every_registered_row_is_whole_and_each_name_that_it_reads_is_a_field(recipe):
    check_recipe(recipe)
    assert from_json(to_json(recipe)) == recipe and hash(recipe) == hash(from_json(to_json(recipe)))
    for slot in slots(recipe):
        function, renamed = find_part(slot.part.path), dict(slot.part.rename)
        if isinstance(function, type):
            continue
        what = reads(function)
        for argument in what.fields + what.optional:
            name = renamed.get(argument, argument)
            if name not in own_names(recipe):
                find_field(name)


def test_numbers_have_one_short_name_or_a_path():
    made = find_recipe(
        "dapo", clip_high=0.3, overlong_buffer=2, kl_coef=0.1, kl_kind="k2", n_epochs=2, dynamic_sampling=3
    )
    assert dict(made.loss.options)["clip_high"] == 0.3 and dict(made.rewards[0].options)["overlong_buffer"] == 2
    assert made.penalties[0].coefficient == 0.1 and dict(made.penalties[0].term.options)["kind"] == "k2"
    assert made.n_epochs == 2 and dict(made.collect.options)["dynamic_sampling"] == 3
    for name in ("loss.clip_high", "rewards.0.overlong_buffer", "penalties.kl.kind", "collect.group_size"):
        value = "k1" if name.endswith("kind") else 3
        assert find_recipe("dapo", **{name: value}) != find_recipe("dapo")
    twice = row(rewards=(part("response_filters:overlong", overlong_buffer=1),) * 2)
    with pytest.raises(UsageError, match="rewards.0.overlong_buffer or rewards.1.overlong_buffer"):
        find_recipe(twice, overlong_buffer=2)
    assert dict(find_recipe(twice, **{"rewards.1.overlong_buffer": 2}).rewards[1].options)["overlong_buffer"] == 2
    for name in ("r_max", "advantage.advantage.r_max"):  # of a part inside a part, as its own error says
        inner = dict(find_recipe("bnpo_components", **{name: 2.0}).advantage.options)["advantage"]
        assert dict(inner.options) == {"r_min": 0.0, "r_max": 2.0}
    assert dict(dict(find_recipe("kimi_k15", pool=7).collect.options)["prompts"].options)["pool"] == 7
    with pytest.raises(UsageError, match="Did you mean 'r_max'"):
        find_recipe("bnpo_components", r_maks=2.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"vf_coef": 3}, "unknown word of the recipe .grpo. .vf_coef."),
        ({"clip_hihg": 3}, "clip_high"),
        ({"kl_coef": -1}, "kl_coef must be a number of at least 0"),
        ({"kl_coef": math.nan}, "kl_coef must be"),
        ({"clip_low": -5.0}, "clip_low.* at least 0"),
        ({"clip_high": "a"}, "clip_high.*number"),
        ({"clip_high": Schedule("linear", 0.2, -1.0)}, "end of the schedule.*at least 0"),
        ({"kl_kind": "k4"}, "Did you mean"),
        ({"center": "grup"}, "Did you mean 'group'"),
        ({"aggregation": "token_mean"}, "Did you mean 'token-mean'"),
        ({"old_logp": "reed"}, "did you mean 'read'"),
        ({"denominator": "some"}, "denominator must be one of"),
        ({"minibatches": 0}, "minibatches must be a positive integer"),
        ({"max_grad_norm": 0}, "max_grad_norm must be a positive number"),
        ({"minibatches": 9}, "never cut"),
        ({"group_size": 1}, "group_size is 1"),
    ],
)
def test_numbers_that_mean_nothing_are_refused_before_anything_is_sampled(words, message):
    with pytest.raises(UsageError, match=message):
        LanguageAgent("tiny", letters(), recipe="grpo", num_prompts=4, recipe_kwargs=words)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: row(loss=part("surrogates:ppo_surogate")), "ppo_surrogate"),
        (lambda: row(loss=part("surrogates:ppo_surrogate", lo=1)), "clip_low|option"),
        (lambda: row(loss=part("surrogates:ppo_surrogate")), "name read by loss"),  # no advantage, so no adv
        (lambda: row(loss=part("surrogates:negative_logp", logp="@teacher_logp")), "teacher_logp"),
        (lambda: row(advantage=part("token_returns:token_gae", old_value="@value")), "name read by advantage"),
        (lambda: row(noise=(("draw", Noise("normal", ("batch",))),)), "rows"),
        (lambda: row(collect=part("surrogates:negative_logp")), "is no collector"),
        (
            lambda: row(rewards=(Part(f"{HERE}:LengthHistory", (("bonus", Schedule("linear", 1.0)),)),)),
            "read `progress`",
        ),
        (lambda: row(models=(SideModel("old"),)), "field 'old_logp', which exists"),
        (lambda: row(noise=(("logp", Noise("normal")),)), "name of a field"),
        (lambda: row(loss=lambda logp: logp), "is a Part"),
        (lambda: row(rewards=NLL), "is a tuple"),
        (lambda: row(penalties=(Penalty("kl", 0.0, NLL), Penalty("kl", 0.0, NLL))), "given twice"),
        (lambda: SideModel("teacher", head="score"), "no head that gives a score"),
        (lambda: SideModel("teacher", start="given", loss=NLL), "does not learn"),
        (lambda: SideModel("teacher", start="soup", follows=Target()), "cannot follow"),
        (lambda: polyathlon.register_recipe(Recipe("grpo", "mine", "me", loss=NLL)), "another recipe has the name"),
        (lambda: polyathlon.register_recipe(Recipe("grpo2", "", "", loss=NLL)), "summary and a source"),
    ],
)
def test_rows_that_do_not_fit_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        made = make()
        if isinstance(made, Recipe):
            check_recipe(made)


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("grpo", {"denominator": "kept"}, "denominator='kept' of the recipe 'grpo' has no effect"),
        ("dr_grpo", {"old_logp": "read"}, None),
        ("copg_online", {"old_logp": "read"}, "old_logp='read' of the recipe 'copg_online' has no effect"),
        ("copg_online", {"aggregation": "token-sum-norm"}, "aggregation of the recipe 'copg_online' has no effect"),
        ("disco", {"aggregation": "seq-mean-token-sum"}, "returns one number for the whole minibatch"),
        ("apo", {"aggregation": "seq-mean-token-sum"}, None),  # of its two terms one has tokens
    ],
)
def test_words_without_effect_are_refused(name, words, message):
    with contextlib.nullcontext() if message is None else pytest.raises(UsageError, match=message):
        agent = LanguageAgent("tiny", letters(), recipe=name, num_prompts=2, group_size=2, seed=0, recipe_kwargs=words)
        agent.update(agent.collect_episodes(), agent.recipe)
    if "aggregation" in words and message is not None:
        kept = dataclasses.replace(find_recipe(name), keep=part("response_filters:mask_truncated"))
        agent = LanguageAgent("tiny", letters(), recipe=kept, num_prompts=2, group_size=2, seed=0)
        with pytest.raises(UsageError, match="keep of the recipe"):
            agent.update(agent.collect_episodes(), agent.recipe)


@pytest.mark.parametrize(
    ("name", "words"),
    [("hapo", {}), ("t_ppo", {"window": 1}), ("fdpg", {}), ("kimi_k15", {}), ("dno", {}), ("dpo", {})],
)
def test_what_is_remembered_of_problems_is_not_carried_into_another_task(name, words):
    agent = iterate(make(name, recipe_kwargs=words), 2)
    fresh = {slot: thing.state_dict() for slot, thing in make(name, recipe_kwargs=words)._wiring.stateful().items()}

    def remembered():
        return {slot: thing.state_dict() for slot, thing in agent._wiring.stateful().items()}

    before = remembered()
    agent.set_env(agent.env)
    assert remembered() == before != fresh  # the same task
    agent.set_env(TokenAction(Probe(), model=TABLE, max_new_tokens=4, max_length=32))
    assert remembered() == (before if name == "dpo" else fresh)  # records lie beside the task
    iterate(agent)


def test_what_no_part_names_is_not_computed():
    agent = LanguageAgent("tiny", letters(), recipe="grpo", num_prompts=2, group_size=2, seed=0)
    assert agent._wiring.roles == () and not {"old_value", "full_logp"} & agent._wiring.needs
    assert wire(find_recipe("grpo", kl_coef=0.1)).roles == ("reference",)
    assert "value" in wire(find_recipe("ppo")).needs
    assert "value" not in wire(find_recipe("ppo", vf_coef=0)).needs


def test_a_row_of_a_module_goes_by_its_path():
    assert find_recipe(f"{HERE}:SETS") is SETS
    with pytest.raises(UsageError, match="SETS"):
        find_recipe(f"{HERE}:SET")
    with pytest.raises(UsageError, match="cannot be imported"):
        find_recipe("no_such_module_here:SETS")


# ------------------------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize("name", KINDS)
def test_micro_batches_give_the_gradient_of_the_whole(name):
    recipe = {"sets": SETS, "entropy": ENTROPY}.get(name, name)
    whole = gradient(recipe, episodes=judged(), agent=agent_for(recipe))
    assert np.abs(whole).max() > 0
    for size in (1, 3) if name in ("grpo", "sets") else (3,):
        found = gradient(recipe, micro=size, episodes=judged(), agent=agent_for(recipe))
        assert relative_gap(found, whole) < 1e-6


def ragged():
    """The recorded episodes of two turns in groups of 1, 2, 3, 4 and 6."""
    episodes = record_recipes.read_episodes()
    for i, episode in enumerate(episodes):
        episode.group = [0, 0, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4][i]
    return episodes


@pytest.mark.parametrize("lora", [None, 3])
@pytest.mark.parametrize("name", KINDS)
def test_shared_beginnings_give_the_same_gradient(name, lora):
    recipe = {"sets": SETS, "entropy": ENTROPY}.get(name, name)
    found = []
    for fast in (True, False):
        agent = record_recipes.make_agent(lora=lora, fast_forward=fast)
        for weight in agent.policy.language_model.parameters():
            if lora and weight.requires_grad:  # an adapter begins with a factor of zeros
                weight.data += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
        found.append(gradient(recipe, episodes=ragged(), agent=agent))
    assert relative_gap(*found) < 1e-5 and float(np.abs(found[0]).max()) > 0


def test_padding_and_the_order_of_rows_change_nothing():
    episodes = record_recipes.read_episodes()
    whole = gradient("grpo", episodes=episodes)
    assert relative_gap(gradient("grpo", episodes=episodes[::-1]), whole) < 1e-5
    one = record_recipes.read_episodes()[:8]
    agent = record_recipes.make_agent()
    update = Update(agent, wire(find_recipe("grpo", n_epochs=1)), one)
    update._before()
    loss = float(update._loss(update.fields, update._read(update.fields))[0].detach())
    padded = collate(one, agent.token_env.rules.pad, agent.device)
    for key in ("tokens", "attention", "mask", "old_logp", "token_reward", "turn", "newest"):
        filler = {"tokens": 7, "turn": -1}.get(key, 0)
        update.fields[key] = torch.nn.functional.pad(padded[key], (0, 5), value=filler)
    update.fields["weight"] = torch.nn.functional.pad(update.fields["weight"], (0, 5))
    assert float(update._loss(update.fields, update._read(update.fields))[0].detach()) == pytest.approx(loss, abs=1e-6)


def test_minibatches_never_cut_a_group():
    agent = record_recipes.make_agent()
    episodes = record_recipes.read_episodes()
    for i, episode in enumerate(episodes):
        episode.group = [7, 7, 7, 2, 2, 9, 9, 9, 9, 9, 1, 1, 3, 3, 3, 3][i]
    update = Update(agent, wire(find_recipe("dr_grpo", minibatches=3, n_epochs=2)), episodes)
    for order in update.orders:
        assert sorted(torch.cat(order).tolist()) == list(range(16)) and len(order) == 3
        groups = [set(update.fields["group"][index].tolist()) for index in order]
        assert sum(map(len, groups)) == len(set.union(*groups)) == 5
    with pytest.raises(UsageError, match="there are 5 groups"):
        Update(agent, wire(find_recipe("dr_grpo", minibatches=6)), episodes)


def test_tokens_of_weight_zero_count_or_do_not():
    agent = record_recipes.make_agent()
    episodes = record_recipes.read_episodes()
    for episode in episodes[::2]:
        episode.finished = False
    keep = part("response_filters:mask_truncated")
    alone = gradient(row(), episodes=episodes[1::2], agent=agent)
    kept = gradient(row(keep=keep, denominator="kept"), episodes=episodes, agent=agent)
    counted = gradient(row(keep=keep), episodes=episodes, agent=agent)
    assert relative_gap(kept, alone) < 1e-5
    share = sum(e.length for e in episodes[1::2]) / sum(e.length for e in episodes)
    assert relative_gap(counted, share * alone) < 1e-5


def test_read_log_probabilities_are_those_of_the_first_step():
    for micro in (None, 3):
        agent = LanguageAgent("tiny", letters(), num_prompts=4, group_size=4, seed=0, micro_batch=micro)
        episodes = agent.collect_episodes()
        row_read = find_recipe("grpo", old_logp="read", minibatches=2)
        update = Update(agent, wire(row_read), episodes)
        update._before()
        index = update.orders[0][0]
        old = update.fields["old_logp"][index]
        now = update._read_in_parts({k: v for k, v in _rows(update, index).items()}).logp
        assert float((now - old).abs().max()) == 0
        sampled = Update(agent, wire(find_recipe("grpo")), episodes).fields["old_logp"][index]
        gap = float(((now - sampled) * update.fields["mask"][index]).abs().max())
        assert 0 < gap < 1e-4


def _rows(update, index):
    from polyathlon.agents.language.episodes import select

    return select(update.fields, index, update.number)


# ------------------------------------------------------------------------------------------------------ rewards


def test_rewards_of_answers_and_of_tokens_are_added_where_they_belong():
    episode = Episode([5, 7, 8, 9], [False, True, True, False], [0.0, -1.0, -2.0, 0.0], [0.0, 0.0, 1.0, 0.0], 0)
    fields = collate([episode], 0, torch.device("cpu"))
    add_reward(fields, torch.tensor([0.5]))
    assert fields["reward"].tolist() == [1.5] and fields["token_reward"].tolist() == [[0.0, 1.5, 0.0]]
    add_reward(fields, torch.tensor([[0.25, 0.25, 100.0]]))
    assert fields["reward"].tolist() == [2.0] and fields["token_reward"].tolist() == [[0.25, 1.75, 0.0]]
    with pytest.raises(UsageError, match="finite"):
        add_reward(fields, torch.tensor([math.nan]))
    with pytest.raises(UsageError, match=r"\[N\] or \[N, T\]"):
        add_reward(fields, torch.zeros(3))


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_reward_that_is_no_number_names_task_and_answer(wrong):
    episode = Episode([5, 7], [False, True], [0.0, -1.0], [0.0, wrong], 0, task="sum 3", text="twelve")
    with pytest.raises(UsageError, match="'sum 3' pays .* for the answer 'twelve'"):
        collate([episode], 0, torch.device("cpu"))


def test_named_parts_of_verdicts_are_fields_and_logged_where_they_apply():
    def said(parts):
        return Episode([5, 7], [False, True], [0, 0], [0, 0], 0, verdict={"correct": True, "parts": parts})

    episodes = [said({"form": 1.0, "sum": 2.0}), said({"form": 0.0}), said({"form": 0.0, "sum": math.nan})]
    fields = collate(episodes, 0, torch.device("cpu"))
    assert fields["components"]["form"].tolist() == [1, 0, 0]
    assert fields["components"]["sum"].isnan().tolist() == [False, True, True]
    found = dict(component_metrics(episodes))
    assert found["reward/form"] == pytest.approx(1 / 3) and found["reward/sum"] == 2 and found["reward/sum_std"] == 0


def test_what_broke_outside_the_policy_is_left_out():
    episodes = record_recipes.read_episodes()
    broken = Episode(
        [5, 7], [False, True], [0.0, -9.0], [0.0, math.nan], 0, failure={"kind": "sandbox", "message": "x"}
    )
    assert relative_gap(gradient("grpo", episodes=[broken, *episodes]), gradient("grpo", episodes=episodes)) < 1e-6
    with pytest.raises(UsageError, match="at least one episode"):
        gradient("grpo", episodes=[broken])


# ------------------------------------------------------------------------------------------------------ state


def test_everything_with_a_state_resumes_to_the_same_bits(tmp_path):
    def make():
        return LanguageAgent("tiny", evens(), recipe=EVERYTHING, num_prompts=3, learning_rate=3e-3, seed=3, lora=2)

    unbroken = make().learn(200, log_interval=None)
    first = make()
    first.learn(100, log_interval=None)
    again = LanguageAgent.resume(first.checkpoint(tmp_path / "run.pt"), evens())
    again._total_timesteps = first._total_timesteps
    first.learn(100, log_interval=None, reset_num_timesteps=False)
    again.learn(100, log_interval=None, reset_num_timesteps=False)
    assert again._wiring.collector.count == first._wiring.collector.count > 12
    assert again._wiring.objects["rewards.0"].shortest == first._wiring.objects["rewards.0"].shortest != {}
    for name, value in weights(first).items():
        assert torch.equal(value, weights(again)[name]), name
    for role, copy in first.side_models.copies.items():
        for name, value in copy.weights.items():
            assert torch.equal(value, again.side_models.copies[role].weights[name]), (role, name)
            assert "lora" in name  # an adapter on the one frozen base
    start = make()
    start.side_models.start(start.policy.language_model, ("process",))
    kept = start.side_models.copies["process"].weights
    moved = first.side_models.copies["process"].weights
    assert any(not torch.equal(kept[name], moved[name]) for name in kept)
    assert unbroken.num_timesteps >= 200


def test_a_run_folder_keeps_a_row_of_ones_own(tmp_path):
    from polyathlon.run_folder import RunConfig, RunFolder

    config = RunConfig(
        "language", "polyathlon/Reasoning-v0", 100, agent_kwargs={"recipe": EVERYTHING, "num_prompts": 2}
    )
    folder = RunFolder(tmp_path / "run")
    folder.create(config)
    folder.extend(200)
    found = folder.config()
    assert found.agent_kwargs["recipe"] == EVERYTHING and found.total_timesteps == 200
    config.refuse_changes(found, tmp_path)
    with pytest.raises(UsageError, match="another run"):
        RunConfig("language", "polyathlon/Reasoning-v0", 100, agent_kwargs={"recipe": SETS}).refuse_changes(
            found, tmp_path
        )
    with pytest.raises(UsageError, match="no such form"):
        RunFolder(tmp_path / "other").create(RunConfig("sac", "x", 1, agent_kwargs={"policy": object()}))


def test_state_that_no_checkpoint_sees_is_refused():
    recipe = row(rewards=(part(f"{HERE}:Forgetful"),))
    with pytest.raises(UsageError, match="Forgetful .*has no state_dict"):
        LanguageAgent("tiny", evens(), recipe=recipe, num_prompts=2, seed=0).learn(1)


def test_a_model_that_is_given_is_read_and_does_not_move():
    teach = Penalty("kl", 0.1, part("divergences:kl_token", kind="k2", ref_logp="@teacher_logp"))
    recipe = row(loss=part("surrogates:ppo_surrogate"), advantage=ADVANTAGE, penalties=(teach,), models=(TEACHER,))
    words = {"recipe": recipe, "num_prompts": 4, "learning_rate": 3e-3, "seed": 0}
    agent = LanguageAgent("tiny", evens(), side_models={"teacher": "tiny"}, **words)
    before = {k: v.clone() for k, v in agent.side_models.given["teacher"].state_dict().items()}
    agent.learn(1, log_interval=None)
    assert abs(agent.logger.name_to_value["train/teacher_kl"]) < 1e-6
    agent.learn(200, log_interval=None, reset_num_timesteps=False)
    assert agent.logger.name_to_value["train/teacher_kl"] > 1e-6
    assert all(torch.equal(before[k], v) for k, v in agent.side_models.given["teacher"].state_dict().items())
    with pytest.raises(UsageError, match="needs a model for 'teacher'"):
        LanguageAgent("tiny", evens(), **words)
    with pytest.raises(UsageError, match="'tutor', which the recipe does not take"):
        LanguageAgent("tiny", evens(), side_models={"teacher": "tiny", "tutor": "tiny"}, **words)


def test_copies_follow_as_their_row_says():
    class Policy:
        language_model = torch.nn.Linear(1, 1, bias=False)
        optimizer = torch.optim.Adam(language_model.parameters())

    models = SideModels(
        (
            SideModel("reference", follows=Target(every=2), reset_optimiser=True),
            SideModel("slow", follows=Target("ema", tau=0.25)),
            SideModel("fixed"),
        ),
        {},
    )
    weight = Policy.language_model.weight
    weight.data.fill_(0.0)
    models.start(Policy.language_model, ("reference", "slow", "fixed"))
    weight.data.fill_(1.0)
    weight.sum().backward()
    Policy.optimizer.step()
    weight.data.fill_(1.0)
    seen = []
    for _ in range(2):
        models.follow(Policy)
        seen.append([float(models.copies[role].weights["weight"]) for role in ("reference", "slow", "fixed")])
        seen[-1].append(len(Policy.optimizer.state))
    assert seen == [[0.0, 0.25, 0.0, 1], [1.0, 0.4375, 0.0, 0]]


def test_noise_depends_on_run_name_iteration_row_and_place_alone():
    def draw(name="a", seed=1, iteration=0, rows=3, tokens=4, kind="normal"):
        return make_noise(name, Noise(kind, ("rows", "tokens")), seed, iteration, rows, tokens, torch.device("cpu"))

    torch.testing.assert_close(draw(rows=5, tokens=9)[:3, :4], draw(), atol=0, rtol=0)
    for other in (draw("b"), draw(seed=2), draw(iteration=1)):
        assert not torch.equal(other, draw())
    assert float(draw(kind="uniform").min()) >= 0 and float(draw(kind="uniform").max()) < 1
    two = make_noise("s", Noise("subset", ("rows", 5), count=2), 0, 0, 50, 1, torch.device("cpu"))
    assert two.shape == (50, 2) and (two[:, 0] != two[:, 1]).all() and set(two.flatten().tolist()) == set(range(5))


# ------------------------------------------------------------------------------------------------------ rollout


@pytest.mark.parametrize("stop", [(), ("ab",)])
def test_windows_write_the_unbroken_answer(stop):
    env = letters(max_new_tokens=6, stop=stop)
    agent = LanguageAgent("tiny", env, num_prompts=4, group_size=2, seed=0, temperature=2.0)
    agent.collect_episodes()
    rollout = Rollout(agent)
    tasks = [i % 6 for i in range(8)]
    keys = [(i, 3 * i + 1) for i in range(8)]
    whole = rollout.play(tasks, list(range(8)), keys=keys)
    for window in (1, 2, 4, 6):
        written = [[] for _ in tasks]
        ids, open_rows = [None] * 8, list(range(8))
        while open_rows:
            before = agent.num_timesteps
            said = rollout.play(
                [tasks[i] for i in open_rows],
                open_rows,
                max_new_tokens=window,
                prefixes=[written[i] for i in open_rows],
                keys=[keys[i] for i in open_rows],
            )
            assert agent.num_timesteps - before <= window * len(open_rows)
            for i, episode in zip(open_rows, said, strict=True):
                own = [t for t, mine in zip(episode.ids, episode.written, strict=True) if mine]
                ids[i], written[i] = episode, own
            open_rows = [i for i in open_rows if not ids[i].finished and len(written[i]) < 6]
        assert [e.ids for e in ids] == [e.ids for e in whole]
        assert [e.rewards for e in ids] == [e.rewards for e in whole]
    with pytest.raises(UsageError, match="max_new_tokens of play"):
        rollout.play(tasks, tasks, max_new_tokens=7)


def test_samplers_of_roles_and_of_mixtures():
    agent = LanguageAgent("tiny", letters(), num_prompts=2, group_size=2, seed=0)
    agent.collect_episodes()
    rollout, tasks, keys = Rollout(agent), [0, 1, 2, 3], [(i, i) for i in range(4)]
    agent.side_models.start(agent.policy.language_model, ("reference",))
    start = rollout.play(tasks, tasks, keys=keys)
    with torch.no_grad():
        for p in agent.policy.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    now = rollout.play(tasks, tasks, keys=keys)
    assert [e.ids for e in now] != [e.ids for e in start]
    assert [e.ids for e in rollout.play(tasks, tasks, rollout.sampler("reference"), keys=keys)] == [
        e.ids for e in start
    ]
    mixed = rollout.sampler("policy", "reference", mix=lambda mine, theirs: theirs + 0 * mine)
    assert [e.ids for e in rollout.play(tasks, tasks, mixed, keys=keys)] == [e.ids for e in start]
    scored = rollout.score(start, "reference")
    wanted = collate(start, 0, agent.device)["old_logp"]
    torch.testing.assert_close(scored, wanted, atol=1e-5, rtol=0)
    with pytest.raises(UsageError, match="mix="):
        rollout.sampler("policy", "reference")


@torch.no_grad()
def test_decoders_of_roles_and_of_mixtures_go_on_with_later_turns():
    agent = LanguageAgent("tiny", letters(), num_prompts=2, group_size=2, seed=0)
    agent.collect_episodes()
    agent.side_models.start(agent.policy.language_model, ("reference",))
    for p in agent.policy.parameters():
        p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    rollout, before = Rollout(agent), [[5, 6, 7], [5, 8]]
    later = [[5, 6, 7, 1], [5, 8, 2, 3]]
    mixed = rollout.sampler("policy", "reference", mix=lambda mine, theirs: mine - 2 * theirs)
    for sampler in (rollout.sampler("policy"), rollout.sampler("reference"), mixed):
        decoder = sampler(before, 2, agent.device)
        assert decoder.follow(later, 2)
        torch.testing.assert_close(decoder.logits, sampler(later, 2, agent.device).logits, atol=1e-4, rtol=0)
        next_of_both = sampler([[*c, 4] for c in later], 1, agent.device).logits
        torch.testing.assert_close(decoder.advance(torch.tensor([4, 4])), next_of_both, atol=1e-4, rtol=0)
    agent.fast_forward = False
    assert not rollout.sampler("policy")(before, 2, agent.device).follow(later, 2)
    assert not mixed(before, 2, agent.device).follow(later, 2)


def test_episodes_say_how_they_ended_and_who_wrote_them():
    agent = LanguageAgent("tiny", letters(), num_prompts=4, group_size=4, seed=0)
    for episode in agent.collect_episodes():
        assert episode.version == [0] * len(episode.ids) and episode.task in range(6)
        assert episode.finished == (episode.end in ("end_token", "stop")) and isinstance(episode.verdict, dict)
    given = agent.solutions(2)
    assert {e.end for e in given} == {"given"} and given[0].text in "abcdef"
    assert collate(given, 0, agent.device)["on_policy"].tolist() == [0, 0]


def test_an_agent_collects_before_it_learns():
    assert len(LanguageAgent("tiny", letters(), num_prompts=2, group_size=2, seed=0).collect_episodes()) == 4


def test_a_part_of_ones_own_may_be_made_of_any_registered_advantage():
    reward, group = torch.tensor([1e8, -1e8, 1e8, 1e8]), torch.tensor([0, 0, 1, 1])
    for name in ("rloo", "grpo", "dr_grpo"):
        advantage = find_recipe(name).advantage
        function = find_part(advantage.path)
        assert "center" in option_names(advantage)
        found = function(reward, group, **dict(advantage.options))
        assert found.isfinite().all() and found[2:].abs().max() == 0
        order = torch.tensor([1, 0, 3, 2])
        torch.testing.assert_close(function(reward[order], group, **dict(advantage.options)), found[order])
    assert ADVANTAGE.path == "advantages:group_advantage" and np.isfinite(float(found.sum()))
