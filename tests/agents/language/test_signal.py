"""What an update does with rewards that do not differ, and with the lengths of several utterances."""

from __future__ import annotations

import warnings

import pytest
import torch

from polyathlon.agents import LanguageAgent
from polyathlon.agents.language.episodes import Episode, collate
from polyathlon.agents.language.signal import PATIENCE, differing_groups, warn_without_signal
from polyathlon.envs.language import TaskReply, Verdict
from polyathlon.wrappers import TokenAction

from .test_language_agent import Letter, weights


class Constant(Letter):
    """Pays the same for every answer."""

    def __init__(self, reward):
        super().__init__(max_turns=1)
        self.reward = reward

    def judge(self, episode, text):
        return TaskReply("", self.reward, True, Verdict(False, 0.0, False, ""))

    def refuse(self, episode, reason):
        return self.judge(episode, reason)


def constant(reward, **options):
    env = TokenAction(Constant(reward), max_new_tokens=3, max_length=32)
    return LanguageAgent("tiny", env, **{"num_prompts": 4, "seed": 0, **options})


def learn_quietly(agent, steps):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return agent.learn(steps, log_interval=None)


@pytest.mark.parametrize("recipe", ["reinforce", "rloo", "grpo", "dr_grpo", "dapo"])
@pytest.mark.parametrize("reward", [-1.7, 100.1])
def test_equal_rewards_move_no_weight(recipe, reward):
    agent = constant(reward, recipe=recipe)
    before = weights(agent)
    learn_quietly(agent, 200)
    assert all(torch.equal(before[name], value) for name, value in weights(agent).items())
    assert agent.logger.name_to_value["train/groups_without_signal"] == 1


def test_five_updates_without_signal_are_warned_of_once():
    agent = constant(0.5, num_prompts=2, group_size=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        agent.learn(400, log_interval=None)
    texts = [str(w.message) for w in caught if "nothing was learnt from" in str(w.message)]
    assert agent._iterations > 6
    assert len(texts) == 1 and "warm_start" in texts[0]


def episode(group, reward, is_correct=None):
    return Episode([5, 7], [False, True], [0.0, -1.0], [0.0, reward], group, is_correct=is_correct)


def test_groups_are_compared_by_reward_or_by_verdict():
    episodes = [episode(0, 0.0, False), episode(0, 0.01, False), episode(1, 1.0, True), episode(1, 1.0, False)]
    assert differing_groups(episodes, 2) == [True, False]
    assert differing_groups(episodes, 2, by_verdict=True) == [False, True]
    assert differing_groups(episodes, 1) == [True]
    assert differing_groups(episodes[2:], 1) == [False]
    assert differing_groups(episodes[:1], 1) == [True]  # there is nothing that it could equal


def test_answers_that_broke_outside_the_policy_are_not_compared():
    broken = episode(0, 5.0)
    broken.failure = "the tool was away"
    assert differing_groups([episode(0, 0.0), broken, episode(1, 0.0), episode(1, 1.0)], 2) == [False, True]
    assert differing_groups([broken], 1) == [False]


def test_the_warning_comes_at_one_number_of_updates_alone():
    with pytest.warns(UserWarning, match=f"each of the last {PATIENCE} updates"):
        warn_without_signal(PATIENCE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for updates in (0, PATIENCE - 1, PATIENCE + 1):
            warn_without_signal(updates)


def test_utterances_are_numbered_also_without_a_gap_between_them():
    said = Episode([5, 7, 8, 9, 3, 6], [False, True, True, True, False, True], [0.0] * 6, [0.0] * 6, 0)
    said.lengths = [2, 1, 1]
    assert collate([said], 0, torch.device("cpu"))["turn"].tolist() == [[0, 0, 1, -1, 2]]
    said.lengths = []
    assert collate([said], 0, torch.device("cpu"))["turn"].tolist() == [[0, 0, 0, -1, 0]]


def test_rewards_add_up_to_the_same_in_any_order():
    one, other = episode(0, 0.0), episode(0, 0.0)
    one.rewards, other.rewards = [0.1, 0.2, 0.3], [0.3, 0.2, 0.1]
    assert one.total == other.total


def test_groups_are_compared_one_by_one():
    rewards = [0.0, 0.0, 1.0, 2.0, 2.0, 2.0, 0.5, 0.5, 0.7]
    episodes = [episode(i // 3, reward) for i, reward in enumerate(rewards)]
    assert differing_groups(episodes, 3) == [True, False, True] and differing_groups(episodes[3:6], 3) == [False]
    assert differing_groups(episodes[:7], 3) == [True, False, False]  # of the third group one is left
    assert differing_groups(episodes, 9) == [True] and differing_groups(episodes, 1) == [True]
    for broken, found in (((0,), True), ((2,), False), ((0, 1), False), ((0, 1, 2), False)):
        group = [episode(0, reward) for reward in rewards[:3]]
        for i in broken:
            group[i].failure = {"kind": "lost", "message": ""}
        assert differing_groups([*group, *episodes[6:]], 3) == [found, True], broken


def test_verdicts_are_compared_where_there_are_any():
    judged = [episode(0, 0.0, True), episode(0, 1.0, True), episode(1, 1.0, False), episode(1, 1.0, True)]
    assert differing_groups(judged, 2, by_verdict=True) == [False, True]
    unjudged = [episode(0, 0.0), episode(0, 1.0), episode(1, 1.0), episode(1, 1.0)]
    assert differing_groups(unjudged, 2, by_verdict=True) == [True, False]


def test_the_warning_says_what_helps():
    said = (
        "in each of the last 5 updates all answers to a problem earned the same, so nothing was learnt from rewards. Imitate the task's own "
        "answers first (agent.warm_start(n=256), or --warm-start N of polyathlon train), take easier problems, or give more answers to each "
        "(group_size) and more tokens (max_new_tokens)"
    )
    with pytest.warns(UserWarning) as caught:
        warn_without_signal(5)
    assert [str(each.message) for each in caught] == [said]
