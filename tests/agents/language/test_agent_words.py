"""The words of a language agent and what it hands on: to its recipe, its policy, readings, updates, logs and statistics.

Modules: polyathlon.agents.language.agent, polyathlon.agents.language.policy.
"""

from __future__ import annotations

import re
from collections import deque
from types import SimpleNamespace

import pytest
import torch

from polyathlon.agents import LanguageAgent
from polyathlon.agents.language import agent as module
from polyathlon.agents.language.episodes import Episode
from polyathlon.agents.language.policy import CausalLMPolicy, check_dtype, put_precision, usual_learning_rate
from polyathlon.agents.language.recipes import find_recipe
from polyathlon.envs.errors import UsageError
from polyathlon.envs.random import make_keys
from polyathlon.wrappers import TokenAction

from .test_every_recipe import TABLE, Probe


def env_of():
    return TokenAction(Probe(), model=TABLE, max_new_tokens=4, max_length=32)


def agent_of(**words):
    return LanguageAgent(TABLE, env_of(), **{"seed": 0, "num_prompts": 2, "device": "cpu", **words})


def exactly(said):
    return pytest.raises(UsageError, match=f"^{re.escape(said)}$")


# ---------------------------------------------------------------------------------------------------------- words


def test_words_that_are_not_given():
    agent = LanguageAgent(TABLE, env_of(), seed=0, device="cpu")
    assert agent.recipe == find_recipe("grpo") and (agent.group_size, agent.num_prompts) == (8, 8)
    assert (agent.temperature, agent.max_logp_gap, agent.fast_forward, agent.micro_batch) == (1.0, 0.1, True, None)
    assert agent.learning_rate == 0.1 and agent.policy_kwargs == {"model": TABLE} and agent.side_model_names == {}
    assert (agent.data, agent.reference_logps, agent.holdout, agent.progress) == (None, "computed", 0.05, 0.0)
    assert (agent._sampled, agent._failed, agent._episodes, agent._differs, agent._silent_updates) == (0, 0, [], [], 0)
    assert agent._contents is None and agent._is_first_checked is False and agent._prompts is agent._rows is None


def test_words_that_are_given():
    agent = agent_of(
        recipe="dr_grpo", learning_rate=0.5, group_size=3, temperature=2, max_logp_gap=0.5, fast_forward=False, micro_batch=4,
        recipe_kwargs={"kl_coef": 0.25}, holdout=0.0,
    )  # fmt: skip
    assert agent.recipe == find_recipe("dr_grpo", group_size=3, kl_coef=0.25) and agent.num_prompts == 2
    assert (agent.learning_rate, agent.temperature, agent.max_logp_gap) == (0.5, 2.0, 0.5)
    assert (agent.fast_forward, agent.micro_batch, agent.holdout, agent.group_size) == (False, 4, 0.0, 3)
    assert isinstance(agent.temperature, float)
    with pytest.raises(
        UsageError, match=r"^temperature must be positive, got 0; predict\(deterministic=True\) is greedy$"
    ):
        agent_of(temperature=0)
    with pytest.raises(UsageError, match="^micro_batch must be a positive integer"):
        agent_of(micro_batch=0)
    with exactly("n_envs=2 has no effect: a language model plays num_prompts * group_size episodes at once; set these"):
        agent_of(n_envs=2)
    assert agent_of(n_envs=1).num_prompts == 2
    with exactly("side_models must be a dict of role and model, got 'tiny'"):
        agent_of(side_models="tiny")
    with pytest.raises(UsageError, match="side_models gives 'teacher'"):
        agent_of(side_models={"teacher": TABLE})
    with pytest.raises(UsageError, match="modle"):
        agent_of(policy_kwargs={"modle": "tiny"})


def test_how_many_problems_and_answers():
    for group, number in ((8, 8), (5, 12), (100, 1), (64, 1)):
        agent = LanguageAgent(TABLE, env_of(), group_size=group, seed=0, device="cpu")
        assert agent.num_prompts == number
        agent._make_vec_env()
        assert (len(agent._prompts), len(agent._rows)) == (number, number * group)
    with exactly(
        "minibatches=3, but an iteration has num_prompts=2 groups, which are never cut: take fewer minibatches or more num_prompts"
    ):
        agent_of(recipe_kwargs={"minibatches": 3})
    assert agent_of(recipe_kwargs={"minibatches": 2}).recipe.minibatches == 2
    pairs = [{"prompt": f"p{i}", "chosen": "1", "rejected": "2"} for i in range(4)]
    records = {"recipe": "dpo", "data": pairs, "holdout": 0.0}
    assert dict(agent_of(**records, num_prompts=3).recipe.collect.options)["batch"] == 3
    assert agent_of(**records, num_prompts=None).num_prompts == 16
    assert agent_of(**records, num_prompts=None, recipe_kwargs={"batch": 5}).num_prompts == 5
    assert agent_of(**records, num_prompts=3, recipe_kwargs={"batch": 5}).num_prompts == 3
    assert agent_of(**records).group_size == 1


def test_words_of_recipes_have_their_place(monkeypatch):
    monkeypatch.setattr(LanguageAgent, "policy_words", ("attn",))
    assert LanguageAgent.holder_of("clip_high") == "recipe_kwargs" == LanguageAgent.holder_of("kl_coef")
    assert LanguageAgent.holder_of("attn") == "policy_kwargs" and LanguageAgent.holder_of("no_such_word") is None


def test_changes_of_a_file_keep_what_they_do_not_name():
    agent = agent_of(recipe="dr_grpo", group_size=3)
    changes = {"num_prompts": 5, "side_models": None, "temperature": 0.5}
    agent.take_changes(changes)
    assert agent.recipe == find_recipe("dr_grpo", group_size=3) and agent.num_prompts == 5
    assert agent.side_model_names == {}
    agent.take_changes({"recipe": "grpo", "recipe_kwargs": {"kl_coef": 0.5}, "group_size": 4})
    assert agent.recipe == find_recipe("grpo", kl_coef=0.5, group_size=4) and agent.num_prompts == 5


# ---------------------------------------------------------------------------------------------------------- precision


def test_step_sizes_and_types_by_name():
    rates = [
        usual_learning_rate(o) for o in ({"model": TABLE}, {"lora": 2}, {}, {"model": "tiny"}, {"model": "org/big"})
    ]
    assert rates == [0.1, 1e-4, 1e-3, 1e-3, 1e-5] and usual_learning_rate({"model": TABLE, "lora": 2}) == 0.1
    assert check_dtype(torch.float64, TABLE) is torch.float64 and check_dtype("float32", TABLE) == "float32"
    assert check_dtype("bfloat16", "tiny") == "bfloat16"
    with exactly(
        "dtype='float16' is not supported: its gradients leave the range of the type without a scaled loss; use 'bfloat16', or 'float32'"
    ):
        check_dtype("float16", "tiny")
    with pytest.raises(UsageError, match=r"^unknown dtype 'float23'.*Did you mean 'float32'.*bfloat16, float32"):
        check_dtype("float23", "tiny")
    with exactly(f"dtype='bfloat16' has no effect on the table {TABLE!r}, which multiplies no matrices: leave it out"):
        check_dtype("bfloat16", TABLE)


def test_precision_is_put_into_the_options():
    def put(dtype="float32", checkpointed=False, fast=True, **options):
        return put_precision(options, dtype, checkpointed, fast, "cpu"), options

    assert put() == (False, {}) and put(fast=False, model="tiny") == (False, {"model": "tiny"})
    assert put("bfloat16", model="tiny") == (True, {"model": "tiny", "dtype": "bfloat16"})
    assert put(dtype="float32", **{}) == (False, {})
    assert put_precision({"dtype": "bfloat16"}, "float32", False, True, "cpu") is True
    assert put(checkpointed=True) == (False, {"gradient_checkpointing": True})
    with exactly("gradient_checkpointing=True needs this package's own forward pass: leave fast_forward=False out"):
        put(checkpointed=True, fast=False)
    with pytest.raises(UsageError, match="no effect on the table"):
        put("bfloat16", model=TABLE)


def test_constructor_words_of_the_policy():
    env = env_of()
    policy = CausalLMPolicy(
        env.observation_space, env.action_space, lambda _: 0.25, model=TABLE, optimizer_kwargs={"eps": 0.5}
    )
    assert (policy.optimizer.defaults["lr"], policy.optimizer.defaults["eps"]) == (0.25, 0.5)
    assert not policy.is_mixed and policy.gradient_checkpointing is False
    assert policy.model_options == {"model": TABLE, "lora": None, "dtype": torch.float32, "attn": None}
    words = policy._get_constructor_parameters()
    assert sorted(words) == [
        *(
            "action_space",
            "attn",
            "dtype",
            "gradient_checkpointing",
            "lora",
            "lr_schedule",
            "model",
            "observation_space",
        ),
        *("optimizer_class", "optimizer_kwargs"),
    ]
    assert words["optimizer_kwargs"] == {"eps": 0.5} and words["model"] == TABLE
    with pytest.raises(
        UsageError, match="^gradient_checkpointing=True needs a model like Llama .*got TableModel: leave it out"
    ):
        CausalLMPolicy(
            env.observation_space, env.action_space, lambda _: 0.25, model=TABLE, gradient_checkpointing=True
        )


# ---------------------------------------------------------------------------------------------------------- what is handed on


def test_keys_count_on():
    agent = agent_of()
    first, second = agent._keys(2), agent._keys(3)
    seed = torch.full((5,), agent._initial_seed % 2**62)
    assert torch.equal(torch.cat([first, second]), make_keys(seed, torch.arange(5))) and agent._sampled == 5


def test_readings_get_what_they_need(monkeypatch):
    calls = []
    monkeypatch.setattr(module, "read_episodes", lambda *words: calls.append(words) or "reading")
    agent = agent_of(temperature=0.5)
    agent.fast_forward = "fast"
    fields = {"tokens": "t", "attention": "a", "mask": torch.tensor([[0, 1, 1], [1, 0, 0]])}
    model, vocabulary = agent.policy.language_model, agent.token_env.rules.vocabulary
    assert agent._read(fields) == "reading"
    agent._read(fields | {"ids": "i", "first": "f"}, True, True, True)
    plain, whole = calls
    assert plain[:6] == (model, None, "t", "a", vocabulary, 0.5) and plain[6].tolist() == [2, 1]
    assert plain[7:] == ("fast", False, False, None, False)
    assert whole[1] is agent.policy.value_net and whole[7:] == ("fast", True, True, ("i", "f"), False)
    agent.side_models.given["teacher"] = "given"
    agent.read_role("teacher", fields, True)
    agent.read_role("reference", fields)
    assert calls[2][:2] == ("given", None) and calls[2][8:10] == (True, False)
    assert calls[3][0] is model and calls[3][8:10] == (False, False) and "reference" in agent.side_models.copies


def test_an_update_starts_its_side_models_and_counts_its_passes(monkeypatch):
    made = []
    monkeypatch.setattr(
        module, "Update", lambda *words: made.append(words) or SimpleNamespace(run=lambda: {"loss": 1.0})
    )
    agent = agent_of(recipe_kwargs={"kl_coef": 0.1})
    assert agent.update(["e"], agent.recipe) == {"loss": 1.0} and agent._n_updates == 1
    assert made[0] == (agent, agent._wiring, ["e"]) and list(agent.side_models.copies) == ["reference"]
    other = find_recipe("dr_grpo", n_epochs=3)
    agent.update(["e"], other)
    assert agent._n_updates == 4 and made[1][1].row == other


def answer(reward=1.0, own=2, broke=False, is_correct=None):
    failure = {"kind": "lost", "message": ""} if broke else None
    ids = [7] * (1 + own)
    return Episode(
        ids, [False] + [True] * own, [0.0] * len(ids), [0.0] * own + [reward], 0, failure=failure, is_correct=is_correct
    )  # fmt: skip


def test_statistics_of_episodes(monkeypatch):
    agent, means = agent_of(), []
    monkeypatch.setattr(type(agent), "logger", SimpleNamespace(record_mean=lambda *words: means.append(words)))
    agent._note([answer(), answer(broke=True)])  # before learning
    assert (agent._failed, agent._episode_num) == (1, 2)
    agent.ep_info_buffer = deque(maxlen=9)
    agent._note([answer(0.5), answer(broke=True), answer(2.0, 3)])
    assert list(agent.ep_info_buffer) == [{"r": 0.5, "l": 2, "t": 0.0}, {"r": 2.0, "l": 3, "t": 0.0}]
    assert (agent._failed, agent._episode_num, means) == (2, 5, [])
    agent._note([answer(0.5), answer(broke=True)], by_policy=False)
    assert means == [("rollout/other_rew_mean", 0.5)] and len(agent.ep_info_buffer) == 2


def test_groups_without_signal_are_logged_and_counted(monkeypatch):
    agent, logged, warned = agent_of(), [], []
    monkeypatch.setattr(type(agent), "logger", SimpleNamespace(record=lambda *words: logged.append(words)))
    monkeypatch.setattr(module, "warn_without_signal", warned.append)
    for differs in ([False, False], [False], [True, False, False, False], [False]):
        agent._differs = differs
        agent._log_signal()
    assert logged == [("train/groups_without_signal", share) for share in (1, 1, 0.75, 1)] and warned == [1, 2, 0, 1]
    for field in ("components", "text"):  # these may differ where rewards do not
        agent._wiring.needs = frozenset({field})
        agent._log_signal()
        assert warned[-1] == 0


def test_what_an_iteration_logs(monkeypatch):
    agent, logged, done = agent_of(), {}, []
    monkeypatch.setattr(type(agent), "logger", SimpleNamespace(record=logged.__setitem__))
    agent.update = lambda episodes, recipe: done.append((list(episodes), recipe)) or {"policy_loss": 0.5}
    agent._update_learning_rate = lambda optimizer: done.append(optimizer)
    monkeypatch.setattr(type(agent.side_models), "follow", lambda self, *words: done.append(words))
    agent._episodes = [
        answer(is_correct=True),
        answer(is_correct=False),
        answer(is_correct=False),
        answer(broke=True),
        answer(),
    ]
    whole = list(agent._episodes)
    agent._failed = 3
    agent.train()
    assert logged == {"rollout/failed": 3, "train/policy_loss": 0.5, "rollout/correct": 1 / 3}
    assert done == [agent.policy.optimizer, (whole, agent.recipe), (agent.policy, ())]
    assert (agent._failed, agent._episodes) == (0, [])
    logged.clear()
    agent._episodes = [answer(broke=True)]
    agent.train()
    assert logged == {"rollout/failed": 1} and len(done) == 5  # nothing to learn from
    logged.clear()
    agent._episodes, agent._differs = [answer(is_correct=True)], [True, False]
    agent._wiring.collector.by_policy = False
    agent.train()
    assert logged == {"train/policy_loss": 0.5, "rollout/other_correct": 1.0, "train/groups_without_signal": 0.5}


def test_what_a_part_hides_is_looked_for_once(monkeypatch):
    agent, seen = agent_of(), []
    agent.collect_episodes = list
    callback = SimpleNamespace(update_locals=lambda found: seen.append(sorted(found)), on_step=lambda: "goes on")
    assert agent.collect(callback) == "goes on" and agent._contents == agent._wiring.stateless()
    assert {"infos", "episodes", "self"} <= set(seen[0])
    agent._wiring.refuse_hidden_state = seen.append
    monkeypatch.setattr(type(agent), "logger", SimpleNamespace(record=lambda *words: None))
    agent._update_learning_rate = lambda optimizer: None
    contents = agent._contents
    agent.train()
    assert seen[1:] == [contents] and agent._contents is None and agent._is_first_checked
    agent.collect(callback)
    assert agent._contents is None


def test_rows_start_at_the_seed_and_another_task_begins_anew():
    agent = agent_of(seed=3)
    agent._reset_source()
    first = list(agent._prompts.tasks)
    again = agent_of(seed=3)
    again._reset_source()
    assert list(again._prompts.tasks) == first
    unseeded = agent_of(seed=None)
    unseeded._initial_seed = 2**31 + 3
    unseeded._reset_source()
    assert list(unseeded._prompts.tasks) == first
    prompts, forgotten = agent._prompts, []
    agent._reset_source()
    assert agent._prompts is prompts
    agent._wiring.forget = lambda: forgotten.append(1)
    agent.set_env(agent.env)
    assert agent._prompts is None and agent._rows is None and not forgotten
    agent.set_env(env_of())
    assert forgotten == [1]
    hidden = agent._excluded_save_params()
    assert {"_prompts", "_rows", "_episodes", "_wiring", "side_models", "opened_data"} <= set(hidden)
