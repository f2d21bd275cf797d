"""What a row needs of a task and does not get, in one line."""

from __future__ import annotations

import re
from types import SimpleNamespace

import gymnasium as gym
import pytest
import torch

from polyathlon.agents.language.episodes import Episode
from polyathlon.agents.language.recipes import Recipe
from polyathlon.agents.language.refusals import (
    refuse_lost,
    refuse_lost_report,
    refuse_missing_scores,
    refuse_missing_verdicts,
    refuse_task,
    refuse_unaveraged,
)
from polyathlon.agents.parts.wiring import part
from polyathlon.agents.streams.vec_envs import ScalarEnvs
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers.tokens.token_action import TokenAction


def exactly(said):
    return f"^{re.escape(said)}$"


def wiring(*needs, name="own", stages=(), **row):
    made = SimpleNamespace(
        name=name, aggregation=Recipe.aggregation, denominator=Recipe.denominator, loss=part("m:loss")
    )
    vars(made).update(row)
    return SimpleNamespace(row=made, needs=frozenset(needs), has_stage=lambda stage: stage in stages)


class Bare(gym.Env):
    """A task without methods."""

    def __str__(self):
        return "<Bare>"


class Hinting(Bare):
    """A task with one."""

    def hint(self, task, fraction):
        return ""


def rows_of(task, wrapped=False):
    tokens = object.__new__(TokenAction)
    tokens.env = task
    outer = tokens
    if wrapped:
        outer = object.__new__(gym.Wrapper)
        outer.env = tokens
    made = object.__new__(ScalarEnvs)
    made.envs = [outer]
    return made


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_task_without_what_a_collector_calls(wrapped):
    collector = SimpleNamespace(needs_task={"hint": "give it one"})
    refuse_task(rows_of(Hinting(), wrapped), collector)
    with pytest.raises(UsageError, match=exactly("<Bare> has no hint(): give it one")):
        refuse_task(rows_of(Bare(), wrapped), collector)
    refuse_task(rows_of(Bare(), wrapped), object())
    refuse_task(Bare(), collector)  # rows of another kind are not looked into


def answer(verdict=None, is_correct=None, finished=True):
    return Episode([1], [True], [0.0], [0.0], 0, verdict=verdict, is_correct=is_correct, finished=finished)


def test_verdicts_without_parts():
    said = (
        "the recipe 'own' reads `components`, but the verdicts of this task have no named parts: give Verdict(parts={'form': 1.0, ...}), or "
        "take a recipe that does not read them"
    )
    read, unread = answer({"invalid": False}), answer({"invalid": True})
    for episodes in ([read], [unread, read], [answer()]):
        with pytest.raises(UsageError, match=exactly(said)):
            refuse_missing_verdicts(episodes, {"components": {}}, wiring("components"))
    refuse_missing_verdicts([unread, unread], {"components": {}}, wiring("components"))
    refuse_missing_verdicts([read], {"components": {"form": torch.ones(1)}}, wiring("components"))
    refuse_missing_verdicts([read], {"components": {}}, wiring("reward"))


def test_tasks_without_verdicts():
    said = (
        "the recipe 'own' reads which answers are right (`correct`), but this task gives no verdicts: let its info hold 'verdict' (a "
        "LanguageTask does), or take a recipe that reads rewards alone"
    )
    with pytest.raises(UsageError, match=exactly(said)):
        refuse_missing_verdicts([answer(), answer()], {}, wiring("correct"))
    for episodes in ([answer(), answer(is_correct=False)], [answer(finished=False), answer()]):
        refuse_missing_verdicts(episodes, {}, wiring("correct"))
    refuse_missing_verdicts([answer()], {}, wiring("reward"))


def test_scores_of_a_model_that_gives_none():
    said = (
        "the recipe 'own' reads `policy_score`, the number that a reward model gives an answer, and a language model gives none: train it with "
        "RewardModel (polyathlon train reward), or read ROLE_score of a given side model"
    )
    for agent in (object(), SimpleNamespace(gives_scores=False)):
        with pytest.raises(UsageError, match=exactly(said)):
            refuse_missing_scores(agent, wiring("policy_score"))
        refuse_missing_scores(agent, wiring("judge_score"))
    refuse_missing_scores(SimpleNamespace(gives_scores=True), wiring("policy_score"))


@pytest.mark.parametrize(
    ("words", "stages", "needs", "said"),
    [
        ({"aggregation": "token-sum-norm", "denominator": "kept"}, ("keep",), (), "aggregation"),
        ({"denominator": "kept"}, ("weights",), (), "denominator"),
        ({}, ("keep", "weights"), (), "keep"),
        ({}, ("weights", "rewards"), (), "weights"),
        ({}, ("keep", "weights"), ("weight",), None),
        ({"denominator": "kept"}, (), ("weight",), "denominator"),
        ({}, ("rewards", "advantage"), (), None),
    ],
)
def test_words_of_averages_where_nothing_is_averaged(words, stages, needs, said):
    made = wiring(*needs, stages=stages, **words)
    if said is None:
        refuse_unaveraged(made)
        return
    sentence = (
        f"{said} of the recipe 'own' has no effect: m:loss returns one number for the whole minibatch, so no tokens are averaged after it: "
        f"leave {said} out, or take a loss of [N, T]"
    )
    with pytest.raises(UsageError, match=exactly(sentence)):
        refuse_unaveraged(made)


def test_a_lost_loss_names_the_term_that_lost_it():
    nan, one = torch.tensor(float("nan"), requires_grad=True), torch.tensor(1.0, requires_grad=True)
    with pytest.raises(FloatingPointError, match="^policy_loss is NaN after 7 passes over episodes; "):
        refuse_lost(nan, {"policy_loss": nan, "value_loss": nan}, 7)
    with pytest.raises(FloatingPointError, match="^loss is NaN after 7 passes over episodes; "):
        refuse_lost(nan, {"policy_loss": one, "ratio": nan}, 7)
    refuse_lost(one, {"policy_loss": nan}, 7)
    refuse_lost(torch.empty((), device="meta"), {}, 7)  # on an accelerator nobody waits for the number
    with pytest.raises(FloatingPointError, match="^value_loss is infinite after 2 passes"):
        refuse_lost_report({"loss": float("inf"), "value_loss": float("inf"), "kl_loss": float("inf")}, 2)
