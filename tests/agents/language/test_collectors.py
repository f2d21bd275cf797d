"""Collectors: pools of problems, marks of reasoning, filters by accuracy, and what they refuse.

Modules: polyathlon.agents.language.pools.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from polyathlon.agents.language.collectors import AdaptiveSecondPass, Groups, HintStages, ThinkingGroups
from polyathlon.agents.language.episodes import Episode
from polyathlon.agents.language.recipes import check_recipe, find_recipe
from polyathlon.agents.parts.aggregation import agg_loss
from polyathlon.agents.parts.wiring import part
from polyathlon.envs.errors import UsageError
from polyathlon.envs.models import load_tokenizer

from .test_every_recipe import TABLE, Probe, iterate, make


def test_problems_are_drawn_by_how_seldom_they_are_solved():
    agent = iterate(make("kimi_k15"), 3)
    sampler = agent._wiring.objects["collect.prompts"]
    assert sorted(sampler.tasks) == [0, 1, 2, 3] and sum(sampler.asked.values()) == 3 * 24
    assert 0 < sum(sampler.right.values()) < 72


def test_a_curriculum_asks_the_task_for_difficulties():
    curriculum = part("prompt_samplers:Curriculum", pool=256)
    with pytest.raises(UsageError, match="needs difficulty"):
        iterate(make("kimi_k15", recipe_kwargs={"prompts": curriculum}))
    Probe.difficulty = lambda self, task: -task
    try:
        agent = make("kimi_k15", recipe_kwargs={"prompts": curriculum})
        assert {e.task for e in agent.collect_episodes()} == {3}  # the easiest quarter
    finally:
        del Probe.difficulty


def test_tokens_within_think_tags_are_marked():
    tokenizer = load_tokenizer("tiny")
    part = ThinkingGroups()

    def marks(text, prompt="<think>no</think>"):
        before, ids = (tokenizer.encode(t, add_special_tokens=False) for t in (prompt, text))
        episode = Episode([*before, *ids], [False] * len(before) + [True] * len(ids), [], [], 0)
        found = part._marks(episode, tokenizer)
        assert len(found) == len(episode.ids) and not any(found[: len(before)])
        return "".join(c for c, mark in zip(text, found[len(before) :], strict=True) if mark)

    assert marks("<think>a b</think>f(1)") == "a b" and marks("so <think>x") == "x"
    assert marks("f(1)") == "" and marks("<think></think>f") == ""


def test_groups_are_kept_by_their_accuracy():
    part = Groups(group_size=4, dynamic_sampling=3, least_accuracy=0.2, most_accuracy=0.5)
    for right, is_kept in ((0, False), (1, True), (2, True), (3, False), (4, False)):
        group = [Episode([1], [True], [0.0], [0.0], 0, is_correct=i < right) for i in range(4)]
        assert part._is_learnable(group) is is_kept
    agent = make("prime", recipe_kwargs={"least_accuracy": 0.3, "most_accuracy": 0.6})
    episodes = agent.collect_episodes()
    shares = [np.mean([e.is_correct for e in episodes if e.group == g]) for g in {e.group for e in episodes}]
    assert shares and all(0.3 <= share <= 0.6 for share in shares)


def test_the_second_pass_goes_to_hard_problems():
    agent = make("dars", recipe_kwargs={"n_max": 24})
    agent.policy.language_model.z.data[0, 0, :, :] = 0.0
    agent.policy.language_model.z.data[0, 0, :, (Probe().targets[0][0] + 1) % 4] = 20.0  # never right
    episodes = agent.collect_episodes()
    by_task = {}
    for episode in episodes:
        by_task.setdefault((episode.group, episode.task), []).append(episode)
    assert len({group for group, _ in by_task}) == len(by_task)  # both passes make one group
    assert any(task == 0 for _, task in by_task) or len(episodes) >= 24
    for (_, task), group in by_task.items():
        first = np.mean([e.is_correct for e in group[:6]])
        assert (len(group) > 6) == (first < 0.5) and (task != 0 or len(group) == 24)


def test_sums_over_tokens_are_divided_by_a_constant_alone():
    loss, mask = torch.tensor([[1.0, 3, 9], [2, 2, 2]]), torch.tensor([[1.0, 1, 0], [1, 1, 1]])
    assert float(agg_loss(loss, mask, "token-sum-norm", 4.0)) == 2.5
    with pytest.raises(UsageError, match="divides by a constant"):
        agg_loss(loss, mask, "token-sum-norm")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: AdaptiveSecondPass(group_size=8, n_max=4), "below group_size"),
        (lambda: HintStages(fractions=()), "rise between 0 and 1"),
        (lambda: HintStages(fractions=(0.5, 0.25)), "rise between 0 and 1"),
        (lambda: find_recipe("dars", schedule="EW"), "ET"),
        (lambda: find_recipe("empo", rule="math"), "maths"),
        (lambda: find_recipe("hapo", keep="median"), "mean"),
        (lambda: find_recipe("hapo", shape="cosin"), "cosine"),
        (lambda: find_recipe("pf_ppo", ranks="best_worse"), "best_worst"),
        (lambda: find_recipe("kdrl", applies="wrongs"), "wrong"),
        (lambda: check_recipe(find_recipe("kimi_k15", prompts="prompt_samplers:Evenlly")), "Evenly"),
        (lambda: find_recipe("disco", kind="L"), "logL"),
        (lambda: find_recipe("apo", base=0.5), "at least 1"),
        (lambda: find_recipe("prime", proces_learning_rate=1.0), "process_learning_rate"),
        (lambda: find_recipe("prime", process_learning_rate=-1.0), "at least 0"),
        (lambda: check_recipe(find_recipe("disco", group_size=1)), "group_size is 1"),
        (lambda: check_recipe(find_recipe("bnpo_components", group_size=1)), "group_size is 1"),
        (lambda: check_recipe(find_recipe("kimi_k15", group_size=1)), "group_size is 1"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        change()


def test_the_step_size_of_a_process_model_has_a_name():
    row = find_recipe("prime", process_learning_rate=0.1)
    assert row.models[0].learning_rate == 0.1 and find_recipe("prime").models[0].learning_rate == 1e-6
    assert dataclasses.replace(row, models=find_recipe("prime").models) == find_recipe("prime")


def test_a_pool_of_another_task_is_refused(tmp_path):
    from polyathlon.agents import LanguageAgent
    from polyathlon.envs.probes import TableTask
    from polyathlon.wrappers import TokenAction

    other = TokenAction(TableTask(4, 2, 4), model=TABLE, max_new_tokens=4, max_length=32)
    for name in ("hapo", "t_ppo", "kimi_k15"):
        path = iterate(make(name)).checkpoint(tmp_path / f"{name}.pt")
        with pytest.raises(UsageError, match="remembers problems of .*Probe"):
            LanguageAgent.resume(path, other)
