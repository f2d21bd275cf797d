"""Wrappers around a text task and around TokenAction hold wherever rows of it run, and own environments train by copies."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import polyathlon
from polyathlon.agents import LanguageAgent
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers import TokenAction
from polyathlon.wrappers.tokens.text_rows import CopiedTexts
from polyathlon.wrappers.tokens.token_batch import TokenBatch
from polyathlon.wrappers.tokens.token_rows import CopiedTokens, token_rows


class Echo(gym.Env):
    """An environment of a user's own: repeat the letter; two turns."""

    observation_space = spaces.Text(64)
    action_space = spaces.Text(64)

    def __init__(self, paid=1.0, seeded=True):
        self.paid, self.seeded = paid, seeded

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        draw = self.np_random if self.seeded else np.random.default_rng()
        self.letter, self.turn = "abcdefgh"[int(draw.integers(8))], 0
        return f"Say {self.letter}", {}

    def step(self, action):
        self.turn += 1
        reward = self.paid if action == self.letter else 0.0 if self.paid == 1.0 else self.paid
        return f"Again {self.letter}", reward, self.turn == 2, False, {}


class Twice(gym.RewardWrapper):
    def reward(self, reward):
        return 2 * reward


class Loud(gym.ObservationWrapper):
    def observation(self, observation):
        return observation + "!"


class Hundred(gym.RewardWrapper):
    def reward(self, reward):
        return 100.0


def tokens(task, **options):
    return TokenAction(task, **{"max_new_tokens": 4, "max_length": 96, **options})


def sums(**options):
    small = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    return gym.make("polyathlon/Reasoning-v0", task="chain_sum", config=small, **options)


def read(env, ids):
    return env.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)


def start_of(env, seed=0):
    observation, info = env.reset(seed=seed)
    return read(env, observation["tokens"][: observation["length"]]), info


def test_rows_of_an_own_environment_are_what_it_is():
    env = tokens(Twice(Loud(Echo())))
    rows = env.batch(3)
    assert isinstance(rows.texts, CopiedTexts)
    contexts = rows.reset(seed=5)
    assert [read(env, ids) for ids in contexts] == [start_of(env, 5 + i)[0] for i in range(3)]
    assert read(env, contexts[0]).endswith("!\n")
    letter = read(env, contexts[0])[4]
    turn = rows.step_utterance([[*env.tokenizer.encode(letter), 2], [*env.tokenizer.encode("?"), 2]], rows=[0, 1])
    assert turn.rewards.tolist() == [2.0, 0.0] and not turn.terminated.any()
    assert f"Again {letter}!" in read(env, turn.context[0])
    # a group enters one task, and a state is continued
    again = rows.reset(tasks=[rows.tasks[0]] * 3)
    assert again[0] == again[1] == again[2] == contexts[0]
    rows.step_utterance([[*env.tokenizer.encode(letter), 2]], rows=[1])
    other = env.batch(3)
    other.set_state(rows.get_state())
    turns = [r.step_utterance([[*env.tokenizer.encode(letter), 2]], rows=[1]) for r in (rows, other)]
    assert turns[0].terminated.all() and turns[1].terminated.all() and turns[0].context == turns[1].context


def test_an_own_environment_trains():
    agent = LanguageAgent("tiny", tokens(Echo()), num_prompts=4, group_size=2, seed=0)
    agent.learn(64)
    assert agent._rows.texts.num_rows == 8
    texts, _ = tokens(Echo()).vector(2).reset(seed=0)
    assert texts["length"].min() > 1


def test_an_environment_that_ignores_its_seed_is_refused():
    agent = LanguageAgent("tiny", tokens(Echo(seeded=False)), num_prompts=4, group_size=8, seed=0)
    with pytest.raises(UsageError, match="at the same seed"):
        agent.learn(64)


@pytest.mark.parametrize("paid", [None, float("nan"), float("inf"), "1"])
def test_rewards_that_are_no_numbers_are_refused_by_name(paid):
    env = tokens(Echo(paid))
    env.reset(seed=0)
    with pytest.raises(UsageError, match="Echo paid the reward"):
        env.step_utterance([*env.tokenizer.encode("x"), 2])
    agent = LanguageAgent("tiny", tokens(Echo(paid)), num_prompts=2, group_size=2, seed=0)
    with pytest.raises(UsageError, match="Echo paid the reward"):
        agent.learn(64)


def test_rewards_of_several_turns_whose_sum_is_infinite_are_refused_by_name():
    """Each is a number that a float holds, and the two together are none."""
    agent = LanguageAgent("tiny", tokens(Echo(1.5e308)), num_prompts=2, group_size=2, seed=0)
    with pytest.raises(UsageError, match="pays inf for the answer .*rewards must be finite numbers"):
        agent.learn(64)


def test_an_instruction_of_a_wrapper_is_read_in_every_form():
    task = gym.wrappers.TransformObservation(sums(), lambda text: "Be brief.\n" + text, None)
    env = tokens(task, max_length=200)
    text, _ = start_of(env, 3)
    assert text.startswith("Be brief.\n")
    assert read(env, env.batch(2).reset(seed=3)[0]) == text
    observation, _ = env.vector(2).reset(seed=3)
    assert read(env, observation["tokens"][0][: observation["length"][0]]) == text
    agent = LanguageAgent("tiny", env, num_prompts=2, group_size=2, seed=0).warm_start(n=4, epochs=1)
    assert all(read(env, e.ids).startswith("Be brief.") for e in agent.solutions(2))


def test_an_instruction_of_a_wrapper_keeps_the_systems_message():
    plain = gym.make("polyathlon/FunctionCall-v0", category="simple_python")
    own, info = plain.reset(seed=0)
    task = gym.wrappers.TransformObservation(plain, lambda text: "First. " + text + " Last.", None)
    env = tokens(task, max_length=1024)
    env.rules.max_length = 4096  # more than tiny reads: only the ids are looked at
    messages = env.rules._introduced(polyathlon.wrappers.tokens.text_rows.heard(task, task.reset(seed=0)[0], info))
    assert [m["role"] for m in messages] == [m["role"] for m in info["messages"]]
    assert messages[0]["content"].startswith("First. ") and messages[-1]["content"].endswith(" Last.")
    assert own.split("\n")[0] in messages[0]["content"]


def test_a_wrapper_outside_holds_in_training():
    env = Hundred(tokens(Echo()))
    rows = token_rows(env, 2)
    assert isinstance(rows, CopiedTokens)
    rows.reset(seed=0)
    turn = rows.step_utterance([[*env.get_wrapper_attr("tokenizer").encode("x"), 2]] * 2)
    assert turn.rewards.tolist() == [200.0, 200.0]
    assert turn.written[0].count(True) == 2 and len(turn.written[0]) == len(turn.context[0])
    inner = token_rows(tokens(Echo()), 2)
    assert isinstance(inner, TokenBatch) and inner.reset(seed=0) == rows.reset(seed=0)
    agent = LanguageAgent("tiny", env, num_prompts=2, group_size=2, seed=0).learn(30)
    assert agent.ep_info_buffer[0]["r"] == 100.0 * agent.ep_info_buffer[0]["l"]


def test_rows_with_wrappers_outside_go_on_where_they_were():
    env = Hundred(tokens(Echo()))
    rows, other = token_rows(env, 1), token_rows(env, 1)
    rows.reset(seed=0)
    said = [[*env.get_wrapper_attr("tokenizer").encode("x"), 2]]
    rows.step_utterance(said)
    other.set_state(rows.get_state())
    mine, theirs = rows.step_utterance(said), other.step_utterance(said)
    assert mine.context == theirs.context and mine.terminated.all() and theirs.terminated.all()
    assert rows.reset() == other.reset()


def test_what_cannot_hold_outside_is_refused_by_name():
    with pytest.raises(UsageError, match="TimeLimit outside TokenAction"):
        token_rows(gym.wrappers.TimeLimit(tokens(Echo()), 3), 2)

    class Other(gym.ActionWrapper):
        def action(self, action):
            return np.int64(5)

    rows = token_rows(Other(tokens(Echo(), max_new_tokens=1)), 1)
    rows.reset(seed=0)
    with pytest.raises(UsageError, match="Other outside TokenAction changes the tokens"):
        rows.step_utterance([[7]])

    class Short(gym.Wrapper):
        def step(self, action):
            observation, reward, _, truncated, info = self.env.step(action)
            return observation, reward, True, truncated, info

    rows = token_rows(Short(tokens(Echo())), 1)
    rows.reset(seed=0)
    with pytest.raises(UsageError, match="Short outside TokenAction ended an utterance"):
        rows.step_utterance([[7, 8, 2]])
