"""A critic before every operation, on a page that writes down what it is given."""

import gymnasium as gym
import pytest

from polyathlon.envs.errors import UsageError
from polyathlon.wrappers import pre_operative_critic
from polyathlon.wrappers.pre_operative_critic import PreOperativeCritic


class WebTask(gym.Env):
    def __init__(self):
        self.done = []

    def reset(self, *, seed=None, options=None):
        self.started = (seed, options)
        return "first page", {"start": 1}

    def step(self, action):
        self.done.append(action)
        return f"page {len(self.done)}", 0.5, False, True, {"own": 2}

    def current_look(self):
        return {"goal": f"goal {len(self.done)}"}


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """What critics are asked."""
    seen = []

    def prompt(*given):
        seen.append(tuple(list(part) if isinstance(part, list) else part for part in given))
        return "prompt"

    monkeypatch.setattr(pre_operative_critic, "critic_prompt", prompt)
    return seen


def answers(*texts):
    left = list(texts)
    return lambda text: left.pop(0)


WRONG = "<score>Incorrect</score><suggestion>{}</suggestion>"
RIGHT = "<score>Correct</score>"


def test_another_operation_is_asked_for_with_the_page_the_operation_and_the_suggestion():
    calls = []

    def resample(*given):
        calls.append(given)
        return f"again {len(calls)}"

    env = PreOperativeCritic(WebTask(), answers(WRONG.format("x"), WRONG.format("y"), RIGHT, RIGHT), resample)
    assert env.reset(seed=3, options={"a": 1}) == ("first page", {"start": 1})
    assert env.unwrapped.started == (3, {"a": 1})
    seen, reward, terminated, truncated, info = env.step("try")
    assert (seen, reward, terminated, truncated) == ("page 1", 0.5, False, True)
    assert [call[:2] for call in calls] == [("first page", "try"), ("first page", "again 1")]
    assert [told["operation"] for told in info["critic"]] == ["try", "again 1", "again 2"]
    assert [told["score"] for told in info["critic"]] == [False, False, True]
    assert [call[2] for call in calls] == [told["suggestion"] for told in info["critic"][:2]]
    assert info["operation"] == "again 2" and info["own"] == 2 and env.unwrapped.done == ["again 2"]
    env.step("more")
    assert calls[2:] == [] and env.unwrapped.done == ["again 2", "more"]


def test_what_a_critic_is_shown_follows_the_episode(asked):
    env = PreOperativeCritic(WebTask(), lambda text: RIGHT)
    for _ in range(2):
        env.reset()
        env.step("one")
        env.step("two")
    history = [[], ["one"], [], ["one"]]  # of the episode
    goals = [f"goal {number}" for number in range(4)]
    assert asked == [(goals[n], history[n], {"goal": goals[n]}, ("one", "two")[n % 2]) for n in range(4)]


def test_replacements_are_bounded():
    env = PreOperativeCritic(WebTask(), lambda text: WRONG.format("no call"), max_revisions=1)
    env.reset()
    info = env.step("try")[4]
    assert [told["operation"] for told in info["critic"]] == ["try", "try"]  # a suggestion that is no call is left
    assert info["operation"] == "try" and PreOperativeCritic(WebTask(), len).max_revisions == 2
    with pytest.raises(UsageError, match="max_revisions"):
        PreOperativeCritic(WebTask(), len, max_revisions=0)
    with pytest.raises(UsageError, match="^PreOperativeCritic judges operations on a page in words"):
        PreOperativeCritic(gym.make("CartPole-v1"), len)


@pytest.mark.parametrize("answer", [RIGHT, (RIGHT, None)])
def test_an_agent_is_a_critic(answer):
    class Agent:
        def predict(self, text):
            assert text == "prompt"
            return answer

    env = PreOperativeCritic(WebTask(), Agent())
    env.reset()
    assert env.step("try")[4]["critic"][0]["score"] is True
