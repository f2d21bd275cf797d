"""Text2Grad in whole updates: the method that it is without spans, what is left out, and where tokens stand in the text."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

import polyathlon
from polyathlon.agents.language.critiqued import read_utterance
from polyathlon.agents.language.recipes import find_recipe
from polyathlon.agents.language.updates import Update
from polyathlon.agents.parts.wiring import part
from polyathlon.envs.errors import UsageError
from polyathlon.envs.language.critics import FunctionCritic
from polyathlon.envs.probes import TableTask
from polyathlon.wrappers import TokenAction
from tests.polyathlon.comparison_names import ENV, MODEL

from .test_every_recipe import TABLE, Probe, iterate, make

HERE = "tests.agents.language.test_text2grad"


def nothing(prompt, answer):
    return []


def first_word(prompt, answer):
    return [(0, 1, 1.0)] if answer else []


def sometimes(prompt, answer):
    return None if prompt == "p1" else [(0, 1, 1.0)]


class Failing(FunctionCritic):
    """Says nothing that can be read of the first answers."""

    def __init__(self, count):
        super().__init__(nothing)
        self.count = count

    def critique(self, prompts, answers):
        return ["{"] * self.count + [[]] * (len(answers) - self.count)


two_broken, three_broken = Failing(2), Failing(3)


def wild(prompt, answer):
    return [(0, 1, 1.0), (0, 1, -1.0), (5, 99, 1.0), {"text": "seven", "score": 1.0}]


def text2grad(critic, **words):
    return make("text2grad", recipe_kwargs={"critic": f"{HERE}:{critic}"} | words)


def table(agent):
    return agent.policy.language_model.z.detach().clone()


def away(agent):
    """Let the policy differ from its reference, so that the divergence is a reward."""
    agent.side_models.start(agent.policy.language_model, ("reference",))
    agent.policy.language_model.z.data[:, 0, :, 0] += 1.0
    return agent


@pytest.mark.parametrize("terminal", [True, False])
def test_without_spans_it_is_ppo_with_the_whole_divergence_as_reward(terminal):
    row = find_recipe("rlhf_ppo", n_epochs=4, minibatches=1)
    row = dataclasses.replace(row, rewards=(part("kl_rewards:FullKLReward", beta=0.05, target=3.0),))
    plain, other = (away(agent) for agent in (_agent(row, pays=terminal), text2grad("nothing", terminal=terminal)))
    before = table(plain)
    assert torch.equal(table(iterate(plain, 3)), table(iterate(other, 3)))
    assert not torch.equal(table(plain), before)


def _agent(row, pays):
    """Return an agent like `make`'s with a row of its own, on a task that pays as usual or nothing."""
    like = make("rlhf_ppo")
    env = like.env.envs[0] if pays else TokenAction(Free(), model=TABLE, max_new_tokens=4, max_length=32)
    agent = type(like)(TABLE, env, recipe=row, num_prompts=4, seed=0, learning_rate=0.05)
    agent.policy.language_model.z.data.copy_(like.policy.language_model.z)
    return agent


class Free(Probe):
    """The probe without its rewards."""

    def _by_target(self, prompt, answer):
        return dataclasses.replace(super()._by_target(prompt, answer), score=0.0)


def fields_of(agent):
    update = Update(agent, agent._wiring, _collected(agent))
    update._before()
    return update.fields


def test_tokens_earn_what_is_said_of_their_words_and_the_divergence():
    agent = text2grad("first_word", **{"rewards.0.beta": 0.0})
    fields = fields_of(agent)
    first = (fields["mask"].cumsum(1) == 1) * fields["mask"]
    is_word = torch.tensor([bool(text) for text in fields["text"]])
    torch.testing.assert_close(fields["token_reward"], first * is_word[:, None])
    paid = fields_of(text2grad("first_word", terminal=True, **{"rewards.0.beta": 0.0}))
    assert float(paid["reward"].sum()) > float(fields["reward"].sum())  # the task's own reward stays
    agent.policy.language_model.z.data[:, 0, :, 0] += 1.0  # now policy and reference differ
    agent._wiring.objects["rewards.0"].beta = 0.5
    moved = fields_of(agent)
    logp, other = moved["old_full_logp"], moved["reference_full_logp"]
    expected = (logp.exp() * (logp - other)).sum(-1) * moved["mask"]
    assert float(expected.sum()) > 0.1
    first = (moved["mask"].cumsum(1) == 1) * moved["mask"] * torch.tensor([bool(t) for t in moved["text"]])[:, None]
    torch.testing.assert_close(moved["token_reward"], first - 0.5 * expected, atol=1e-6, rtol=1e-5)


def test_an_answer_whose_critique_cannot_be_read_is_left_out():
    agent = iterate(text2grad("sometimes"), 6)
    metrics, counts = agent._wiring.collector.metrics(), agent._wiring.collector.counts
    assert 0 < metrics["unread"] < 1 and counts["answers"] == 24
    logged = agent.logger.name_to_value
    assert logged["critic/unread"] == metrics["unread"] and "critic/outside" in logged
    untouched = table(agent)[1] == table(make("text2grad"))[1]
    seen = bool(counts["unread"])
    assert seen and bool(untouched.all())  # nothing was learnt of the prompt that nothing was said of


def test_what_the_policy_has_left_far_behind_teaches_nothing_and_overflows_nowhere():
    """The authors' code bounds log-ratios by 20 and skips a minibatch whose mean ratio is above 10."""
    agent = text2grad("first_word")
    update = Update(agent, agent._wiring, _collected(agent))
    update._before()
    fields, reading = update.fields, update._read(update.fields)
    for gap, is_skipped in ((1.0, False), (100.0, True)):
        leaf = (fields["old_logp"] + gap).requires_grad_()
        loss, _ = update._loss(fields, reading._replace(logp=leaf))
        (gradient,) = torch.autograd.grad(loss, leaf, retain_graph=True)
        assert bool(loss.isfinite()) and bool((gradient == 0).all()) == is_skipped
        assert bool(fields["adv"].lt(0).any())  # whose ratios are not clipped above
    bounded = agent._wiring.loss(fields | {"logp": fields["old_logp"] + 100.0})
    assert float(bounded.abs().max()) <= float(fields["adv"].abs().max()) * math.exp(20) * (1 + 1e-6)


def _collected(agent):
    agent._setup_learn(1)
    agent._before_training()
    return agent.collect_episodes()


@pytest.mark.parametrize(("critic", "skipped"), [("two_broken", 0), ("three_broken", 3)])
def test_an_update_of_fewer_than_half_is_skipped(critic, skipped):
    agent = away(text2grad(critic))
    before = table(agent)
    iterate(agent, 3)
    counts = agent._wiring.collector.counts
    assert counts["skipped"] == skipped and counts["answers"] == 12 and counts["unread"] == (9 if skipped else 6)
    assert torch.equal(before, table(agent)) == bool(skipped)
    assert agent.num_timesteps > 0 and agent.logger.name_to_value["critic/skipped"] == skipped


def test_spans_outside_unmatched_and_overlapping_are_counted_and_nothing_stops():
    agent = iterate(text2grad("wild"), 2)
    metrics = agent._wiring.collector.metrics()
    assert metrics["outside"] == 0.25 and metrics["unmatched"] == 0.25 and metrics["overlapping"] <= 0.25
    assert metrics["unread"] == metrics["skipped"] == 0


def test_counts_resume(tmp_path):
    agent = iterate(text2grad("sometimes"), 2)
    again = type(agent).resume(agent.checkpoint(tmp_path / "run.pt"), agent.env)
    assert again._wiring.collector.counts == agent._wiring.collector.counts


def test_a_task_without_a_solution_needs_a_critic():
    env = TokenAction(TableTask(4, 2, 4, score=lambda x, a: 1.0), model=TABLE, max_new_tokens=4, max_length=32)
    agent = type(make("text2grad"))(TABLE, env, recipe="text2grad", num_prompts=4, seed=0)
    with pytest.raises(UsageError, match="no critic"):
        agent.learn(1)
    with pytest.raises(UsageError, match="no function that can be imported"):
        iterate(text2grad("no_such_critic"))


@pytest.mark.parametrize("model", ["tiny", TABLE])
def test_tokens_stand_where_their_text_is(model):
    rules = TokenAction(TableTask(4, 2, 4), model=model, max_new_tokens=16, max_length=64).rules
    text = "1 2 0" if model == TABLE else "né, 12"
    ids = [*rules.tokenizer.encode(text, add_special_tokens=False), rules.eos]
    found, offsets = read_utterance(ids, rules)
    assert found == text and offsets[-1] == (0, 0)
    if model == TABLE:
        assert [text[a:b].strip() for a, b in offsets[:-1]] == ["1", "2", "0"]
    else:  # both bytes of é stand at é
        assert [text[a:b] for a, b in offsets[:-1]] == ["n", "é", "é", ",", " ", "1", "2"]
    cut, places = read_utterance(ids[:2], rules)
    assert len(places) == 2 and places[0] == (0, 1) and len(cut) >= 1


def test_reasoning_and_what_follows_a_stop_text_is_not_read():
    task = TableTask(4, 2, 4)
    thinking = TokenAction(task, model="tiny", max_new_tokens=32, max_length=64, strip_reasoning=True).rules
    ids = thinking.tokenizer.encode("<think>a</think>yes", add_special_tokens=False)
    text, offsets = read_utterance(ids, thinking)
    assert text == "yes" and offsets[-3:] == [(0, 1), (1, 2), (2, 3)] and set(offsets[:-3]) == {(0, 0)}
    stopped = TokenAction(task, model="tiny", max_new_tokens=32, max_length=64, stop=("\n",)).rules
    text, offsets = read_utterance(stopped.tokenizer.encode("yes\n", add_special_tokens=False), stopped)
    assert text == "yes" and offsets[:3] == [(0, 1), (1, 2), (2, 3)]


def test_solutions_are_not_known_where_rows_are_copies_of_a_task_with_a_limit_of_its_own():
    words = {"model": MODEL, "completions": 16, "wrapper_kwargs": {"max_new_tokens": 1}}
    for recipe, numbers, told in (
        ("text2grad", {}, "no critic"),
        ("dno_prct", {"gold": True}, "gold=True.*stands around"),
    ):
        with pytest.raises(UsageError, match=told):
            polyathlon.train(recipe, ENV, agent_kwargs={"num_prompts": 4, "recipe_kwargs": numbers}, **words)
