"""Methods at the numbers at which they are others: gradients of one recorded batch of a transformer, and runs to the same bits."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.recipe_wiring import wire
from polyathlon.agents.language.recipes import Recipe, find_recipe
from polyathlon.agents.language.reference import Reference
from polyathlon.agents.language.updates import Update
from polyathlon.agents.parts.wiring import part
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers import TokenAction

from .own_recipes import HERE
from .test_every_recipe import TABLE, Probe, iterate, make
from .test_recipe_seam import agent_for, gradient, judged
from .test_recorded_gradients import relative_gap


def changed(name, *, row=None, **words):
    """A row with other numbers, and with other records where `row` gives them."""
    return dataclasses.replace(find_recipe(name, **words), **(row or {}))


def found(recipe, episodes=None, agent=None):
    return gradient(recipe, episodes=episodes or judged(), agent=agent or agent_for(recipe))


def regrouped(right):
    """The recorded episodes in groups of four with so many right ones each."""
    episodes = judged()[: 4 * len(right)]
    for i, episode in enumerate(episodes):
        episode.group, is_right = i // 4, i % 4 < right[i // 4]
        last = max(t for t, own in enumerate(episode.written) if own)
        episode.rewards = [0.0] * len(episode.ids)
        episode.rewards[last], episode.is_correct = float(is_right), is_right
    return episodes


HIGHER = find_recipe("bnpo").loss
VERDICT = (("format", 1.0), ("verdict", 1.0))
LIMITS = {
    "rloo is dr_grpo n / (n - 1)": ("rloo", changed("dr_grpo", aggregation="seq-mean-token-sum"), 4 / 3),
    "forking tokens, all of them": (
        changed("forking_tokens", rho=1.0),
        changed("dapo", **{"collect.group_size": 16}),
        1,
    ),
    "equal weights of places": (
        changed("tw_grpo", alpha=1.0),
        changed("grpo", aggregation="token-mean", eps=1e-4),
        1,
    ),
    "apo without factor and weight": (
        changed("apo", base=1.0, kl_coef=0.0),
        changed("grpo", aggregation="token-mean", eps=1e-9),
        1,
    ),
    "hapo without length": (changed("hapo", history_weight=0.0), "grpo", 1),
    "function_calls without entropy": (
        changed(
            "function_calls",
            row={"collect": find_recipe("grpo").collect, "advantage": part(f"{HERE}:no_thinking_advantage", lam=0.0)},
        ),
        changed("grpo", kl_coef=1e-3),
        1,
    ),
    "s_grpo without the suggestion": (
        changed("s_grpo", weights={"format": 1.0, "verdict": 1.0, "suggestion": 0.0}),
        changed("grpo", row={"rewards": (part("reward_components:MixedComponents", weights=VERDICT),)}),
        1,
    ),
    "kdrl without the pull": (changed("kdrl", kd_coef=0.0), changed("grpo", aggregation="token-mean"), 1),
    "pf_ppo with all answers": (
        changed("pf_ppo", ranks="all"),
        changed("ppo", aggregation="seq-mean-token-mean"),
        1,
    ),
    "lite_ppo with the group's deviation": (
        changed("lite_ppo", scale="group"),
        changed("grpo", aggregation="token-mean"),
        1,
    ),
}


@pytest.mark.parametrize("case", LIMITS)
def test_methods_are_their_bases_in_the_limit(case):
    method, base, factor = LIMITS[case]
    wanted = found(base)
    assert np.abs(wanted).max() > 0 and relative_gap(found(method), factor * wanted) < 1e-6


def test_each_number_matters():
    """What is switched off above does something where it is on."""
    for name, base in (
        ("forking_tokens", changed("dapo", **{"collect.group_size": 16})),
        ("tw_grpo", changed("grpo", aggregation="token-mean", eps=1e-4)),
        (changed("apo", base=1.5), changed("apo", base=1.0)),
        ("apo", changed("apo", kl_coef=0.0)),
        ("pf_ppo", changed("pf_ppo", ranks="all")),
        ("lite_ppo", changed("lite_ppo", scale="group")),
        ("s_grpo", changed("s_grpo", weights={"format": 1.0, "verdict": 1.0, "suggestion": 0.0})),
    ):
        assert relative_gap(found(name), found(base)) > 1e-4, name


def test_bnpo_is_two_other_methods():
    plain = Recipe(
        "plain", "", "", loss=HIGHER, advantage=part("advantages:group_advantage", center="group"),
        aggregation="seq-mean-token-sum",
    )  # fmt: skip
    one = regrouped([1])
    assert relative_gap(found("bnpo", one), found(plain, regrouped([1]))) < 1e-6  # alpha = beta = 1
    scaled = dataclasses.replace(
        plain, advantage=part("advantages:group_advantage", center="group", scale="group", eps=0.0)
    )
    three = [1, 2, 3]  # a = b = 1.5, so alpha = beta = 1.5
    wanted = math.pi / 8 * math.sqrt(4 / 3) * found(scaled, regrouped(three))
    assert relative_gap(found("bnpo", regrouped(three)), wanted) < 1e-6
    right = dataclasses.replace(find_recipe("bnpo_components", weights={"right": 1.0}))
    assert relative_gap(found(right), found("bnpo")) < 1e-6  # one part that is the reward


def test_set_losses_on_policy_are_policy_gradients():
    read = {"old_logp": "read"}
    disco = changed("disco_b", kind="L-ratio", row=read)
    counts = Recipe(
        "counts", "", "", loss=part("surrogates:ppo_surrogate"), advantage=part(f"{HERE}:over_counts"),
        aggregation="seq-mean-token-mean", **read,
    )  # fmt: skip
    wanted = found(counts)
    assert relative_gap(found(disco), wanted) < 1e-6
    assert relative_gap(found(changed("disco", kind="L-ratio", tau=1e6, row=read)), wanted) < 1e-5
    kimi = changed(
        "kimi_k15", tau=0.5, row={"loss": part("mirror_descent:mirror_loss", tau=0.5), "rewards": (), **read}
    )
    dr_grpo = changed("dr_grpo", aggregation="seq-mean-token-sum", row=read)
    assert relative_gap(found(kimi), found(dr_grpo)) < 1e-6


def test_kl_cov_and_clip_cov_on_the_first_step_take_read_log_probabilities():
    """With the sampler's own numbers |log p - log p_old| is rounding noise, and its sign a gradient."""
    agent = LanguageAgent("tiny", make_letters(), num_prompts=4, group_size=4, seed=0)
    episodes = agent.collect_episodes()
    for i, episode in enumerate(episodes):
        episode.rewards[max(t for t, own in enumerate(episode.written) if own)] = float(i % 3 == 0)
    held = changed("kl_cov", k_percent=50.0, kl_cov_coef=1.0)
    free = dataclasses.replace(held, loss=part("surrogates:ppo_surrogate", clip_low=1e6, clip_high=1e6))
    wanted = gradient(free, episodes=episodes, agent=agent)
    assert relative_gap(gradient(held, episodes=episodes, agent=agent), wanted) < 1e-6
    sampled = dataclasses.replace(held, old_logp="sampled")
    assert relative_gap(gradient(sampled, episodes=episodes, agent=agent), wanted) > 1e-3
    clipped = changed("clip_cov", ratio=0.0)
    plain = dataclasses.replace(clipped, weights=(), noise=())
    wanted = gradient(plain, episodes=episodes, agent=agent)
    assert relative_gap(gradient(clipped, episodes=episodes, agent=agent), wanted) < 1e-6


def make_letters():
    from .test_language_agent import letters

    return letters(max_new_tokens=6)


def test_a_process_model_that_is_the_reference_leaves_outcomes():
    agent = agent_for("prime")
    agent.side_models.copies["process"] = Reference({k: v.clone() for k, v in agent._reference.weights.items()})
    outcome = Recipe(
        "outcome", "", "", loss=find_recipe("prime").loss, advantage=part("advantages:whitened_advantage", center="loo")
    )
    wanted = found(outcome)
    assert relative_gap(found("prime", agent=agent), wanted) < 1e-6
    assert relative_gap(found("prime"), wanted) > 1e-3  # a process model that starts elsewhere


def test_a_teacher_that_is_the_student_pulls_nowhere():
    recipe = changed("kdrl", kd_coef=1.0)
    agent = agent_for(recipe)
    agent.side_models.given["teacher"] = agent.policy.language_model
    base = found(changed("kdrl", kd_coef=0.0))
    assert relative_gap(found(recipe, agent=agent), base) < 1e-6
    other = agent_for(recipe)
    for weight in other.side_models.given["teacher"].parameters():
        weight.mul_(1.1)
    assert relative_gap(found(recipe, agent=other), base) > 1e-2


# ------------------------------------------------------------------------------------------------ to the same bits


def runs_alike(first, second, number=3):
    for agent in (first, second):
        iterate(agent, number)
    a, b = (agent.policy.language_model.z for agent in (first, second))
    assert bool((a != 0).any()) and torch.equal(a, b)


def test_dars_without_a_second_pass_is_dr_grpo():
    base = changed("dr_grpo", aggregation="token-sum-norm", group_size=6)
    dars = changed("dars", n_max=6, group_size=6, minibatches=1)
    runs_alike(make(dars.name, recipe_kwargs={"n_max": 6, "minibatches": 1}), table(base))
    more = make(dars.name, recipe_kwargs={"n_max": 12, "minibatches": 1})
    assert len(more.collect_episodes()) > 24


def table(recipe, right=1.5):
    env = TokenAction(Probe(), model=TABLE, max_new_tokens=4, max_length=32)
    agent = LanguageAgent(TABLE, env, recipe=recipe, num_prompts=4, seed=0, learning_rate=0.05)
    agent.policy.language_model.z.data.copy_(make("grpo").policy.language_model.z)
    return agent


def test_hints_are_for_groups_without_a_right_answer_alone():
    """GHPO without such groups is GRPO to the bit; one that has them replaces these as a whole, stage by stage."""
    base = changed("grpo", eps=1e-4, group_size=16)
    ghpo = make("ghpo", group_size=16)
    plain = table(base)
    assert all(any(e.is_correct for e in plain.collect_episodes()[16 * q : 16 * q + 16]) for q in range(4))
    runs_alike(make("ghpo", group_size=16), table(base), number=2)
    ghpo.policy.language_model.z.data[1, 0] = 0
    ghpo.policy.language_model.z.data[1, 0, :, (Probe().targets[1][0] + 1) % 4] = 20.0  # never right
    hints = {e.task[1] for e in ghpo.collect_episodes() if e.task[0] == 1}
    others = {e.task[1] for e in ghpo.collect_episodes() if e.task[0] != 1}
    assert hints and hints <= {0.25, 0.5, 0.75} and others <= {0.0}
    late = make("ghpo", group_size=16, recipe_kwargs={"hints_from": 1.0})
    late.policy.language_model.z.data.copy_(ghpo.policy.language_model.z)
    assert {e.task[1] for e in late.collect_episodes()} == {0.0}
    hinted = next(e for e in ghpo.collect_episodes() if e.task[1] > 0)
    assert sum(hinted.written) < len(hinted.ids) - 1  # hints are prompt, and carry no loss


def test_windows_as_long_as_answers_are_ppo():
    words = {"vf_coef": 0.0, "nll_coef": 0.0, "ignore": 0}
    t_ppo = make("t_ppo", recipe_kwargs={"window": 4, **words})
    row = t_ppo.recipe
    base = dataclasses.replace(
        row, name="base", collect=part("collectors:Groups", group_size=6), weights=(), denominator="all", penalties=(),
        advantage=part("token_returns:token_gae", gamma=1.0, gae_lambda=0.95, whiten=True),
    )  # fmt: skip
    runs_alike(t_ppo, table(base))


# ------------------------------------------------------------------------------------------------ over the batch


@pytest.mark.parametrize("name", ["bnpo", "lite_ppo", "prime", "reinforce_pp", "pf_ppo"])
def test_statistics_of_a_batch_do_not_change_with_minibatches(name):
    made = []
    for minibatches in (1, 2):
        recipe = changed(name, minibatches=minibatches)
        update = Update(agent_for(recipe), wire(recipe), judged())
        update._before()
        made.append(update.fields["adv"])
    assert torch.equal(*made)


def test_a_task_without_verdicts_is_refused():
    episodes = judged()
    for episode in episodes:
        episode.is_correct, episode.verdict, episode.finished = None, None, True
    for name in ("hapo", "apo", "prime", "kimi_k15"):
        with pytest.raises(UsageError, match="gives no verdicts"):
            gradient(name, episodes=episodes, agent=agent_for(name))
