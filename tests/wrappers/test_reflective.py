"""Reflections between trials: rewards are differences of returns, the actor stays as it is, what is solved ends."""

from __future__ import annotations

import gymnasium as gym
import pytest

from polyathlon.envs.errors import UsageError
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskReply, Verdict
from polyathlon.wrappers import Reflective, TokenAction, Verbalize

CAUSES = ("a", "b", "c", "d", "e", "f")


class Hidden(LanguageTask):
    """A fault with a hidden cause: the answer must name it; half is paid for a try."""

    def draw(self, rng):
        return CAUSES[int(rng.integers(len(CAUSES)))]

    def begin(self, task_id):
        return TaskEpisode(task_id, "what is broken?")

    def judge(self, episode, text):
        right = text == episode.task
        return TaskReply("", 1.0 if right else 0.25 * len(text), True, Verdict(right, float(right), False, ""))


def reader(text, rng):
    """Names what the last reflection names, and nothing without one."""
    lines = [line for line in text.splitlines() if line[:1].isdigit()]
    return lines[-1].partition(". ")[2] if lines else ""


def test_rewards_are_differences_of_returns_and_sum_to_the_whole_gain():
    env = Reflective(Hidden(), reader, trials=5)
    text, _ = env.reset(options={"task": ("c", 0)})
    assert text.startswith("Task: what is broken?\nAnswer: \n\nReturn of trial 1: 0")
    rewards = []
    for said in ("xx", "x", "yyy"):
        text, reward, terminated, truncated, info = env.step(said)
        rewards.append(reward)
        assert not terminated and not truncated and f"Answer: {said}" in text
    assert rewards == [0.5, -0.25, 0.5] and info["verdict"]["parts"] == {"return": 0.75, "gain": 0.5}
    _, reward, terminated, truncated, info = env.step("c")
    assert terminated and not truncated and info["verdict"]["correct"]
    assert sum(rewards) + reward == 1.0


def test_the_last_trial_truncates():
    env = Reflective(Hidden(), reader, trials=3)
    env.reset(options={"task": ("c", 0)})
    assert env.step("a")[2:4] == (False, False)
    assert env.step("b")[2:4] == (False, True)


def test_what_the_first_trial_solves_pays_nothing_and_plays_no_more():
    played = []

    def knowing(text, rng):
        played.append(text)
        return "c"

    env = Reflective(Hidden(), knowing)
    env.reset(options={"task": ("c", 0)})
    _, reward, terminated, _, info = env.step("anything")
    assert (reward, terminated, info["verdict"]["correct"], len(played)) == (0.0, True, True, 1)


def test_an_actor_that_does_not_read_its_memory_gains_the_same_whatever_the_reflection():
    def deaf(text, rng):
        return "x" * int(rng.integers(4))

    gains = []
    for said in ("a", "a long reflection"):
        env = Reflective(Hidden(), deaf, trials=4)
        env.reset(options={"task": ("c", 7)})
        gains.append([env.step(said)[1] for _ in range(3)])
    assert gains[0] == gains[1] and len(set(gains[0])) > 1  # it draws, by the trial's own generator


def test_repeats_average_what_the_actor_draws():
    def coin(text, rng):
        return "c" if rng.random() < 0.5 else ""

    whole = Reflective(Hidden(), coin, repeats=400)
    whole.reset(options={"task": ("c", 0)})
    memory = whole._row.episode.data
    assert memory.trials[0].total == pytest.approx(0.5, abs=0.1) and not memory.trials[0].solved


def test_rows_at_once_play_the_trials_of_single_environments():
    def drawing(text, rng):
        return reader(text, rng) + "x" * int(rng.integers(3))

    env = Reflective(Hidden(), drawing, trials=3)
    batch = env.batch(3)
    first, _ = batch.reset(seed=4)
    steps = [batch.step(["a", "bb", "c"]), batch.step(["c", "", "d"])]
    for i, said in enumerate((("a", "c"), ("bb", ""), ("c", "d"))):
        alone = Reflective(Hidden(), drawing, trials=3)
        assert alone.reset(seed=4 + i)[0] == first[i]
        for step, text in zip(steps, said):
            found = alone.step(text)
            assert (found[0], found[1]) == (step[0][i], step[1][i])


def test_an_agent_acts_for_all_rows_at_once():
    class Agent:
        calls = 0

        def predict(self, texts, deterministic=False):
            assert deterministic
            Agent.calls += 1
            return ["c" if "name c" in text else "" for text in texts], None

    env = Reflective(Hidden(), Agent(), repeats=2)
    batch = env.batch(3)
    batch.reset(seed=0)
    before = Agent.calls
    batch.step(["name c"] * 3)
    assert Agent.calls == before + 1


def test_a_whole_environment_is_reflected_upon_through_verbalize():
    env = Reflective(Verbalize(gym.make("CartPole-v1", max_episode_steps=5)), lambda text, rng: "0")
    text, _ = env.reset(seed=0)
    assert "Return of trial 1: 5" in text
    assert env.step("push left")[1] == 0.0


def test_a_resumed_episode_is_the_same():
    env = Reflective(Hidden(), reader)
    env.reset(seed=3)
    env.step("a")
    other = Reflective(Hidden(), reader)
    other.set_state(env.get_state())
    assert env.step("b")[:4] == other.step("b")[:4]


def test_a_language_agent_trains_on_it_and_the_frozen_actor_stays(tmp_path):
    import torch

    import polyathlon

    inner = TokenAction(Hidden(), max_new_tokens=1)
    actor = polyathlon.make_agent("language", inner, seed=0)
    before = [p.clone() for p in actor.policy.parameters()]
    env = TokenAction(Reflective(Hidden(), actor, trials=3), max_new_tokens=2)
    agent = polyathlon.make_agent("language", env, seed=0, num_prompts=1, group_size=2)
    agent.learn(4)
    assert agent.num_timesteps >= 4
    assert all(torch.equal(a, b) for a, b in zip(before, actor.policy.parameters()))


class Endless(Hidden):
    """Says the same for ever."""

    def judge(self, episode, text):
        return TaskReply("again", 0.0, False, Verdict(False, 0.0, False, ""))


def broken(text, rng):
    raise RuntimeError("no power")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reflective(gym.make("CartPole-v1"), reader), "Verbalize"),
        (lambda: Reflective(Hidden(), 3), "actor must be a function"),
        (lambda: Reflective(Hidden(), reader, trials=1), "at least 2"),
        (lambda: Reflective(Hidden(), reader, repeats=0), "repeats"),
        (lambda: Reflective(Endless(), reader, max_steps=3).reset(seed=0), "did not end within max_steps=3"),
        (lambda: Reflective(Hidden(), broken).reset(seed=0), "the actor raised RuntimeError: no power"),
        (lambda: Reflective(Hidden(), lambda text, rng: 1).reset(seed=0), "must answer by a text, got int"),
        (lambda: Reflective(Hidden(), reader).reset(options={"task": "c"}), "pairs"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_an_actor_that_breaks_later_ends_the_episode_as_a_failure():
    def tired(text, rng):
        return broken(text, rng) if "1. " in text else ""

    env = Reflective(Hidden(), tired)
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step("a")
    assert (reward, terminated, truncated, info["failure"]["kind"]) == (0.0, False, True, "actor")
