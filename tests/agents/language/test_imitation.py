"""Reference answers as episodes: where they come from, how they are cut, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import gymnasium as gym
import pytest

from polyathlon.agents.language.imitation import find_solver, like, solved
from polyathlon.envs.errors import UsageError
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskReply, Verdict
from polyathlon.wrappers import TokenAction


class Echo(LanguageTask):
    """Answer with as many letters as the task's number."""

    def draw(self, rng):
        return int(rng.integers(1, 4))

    def begin(self, task_id):
        return TaskEpisode(task_id, f"{task_id} letters")

    def judge(self, episode, text):
        verdict = Verdict(True, 1.0, False, "")
        return TaskReply("", 1.0, True, verdict)


class Solved(Echo):
    """The same with reference answers."""

    def solution(self, task_id):
        return "x" * task_id


def tokens(task, **options):
    return TokenAction(task(max_turns=1), **{"max_new_tokens": 3, "max_length": 64, **options})


def drawn(env, number=4, seed=0):
    prompts = env.batch(number)
    prompts.reset(seed=seed)
    return prompts


class Wrapped(gym.Wrapper):
    """A wrapper in between."""


def test_the_answers_come_from_the_task_below_all_wrappers():
    env = tokens(Solved)
    assert find_solver(env)(2) == "xx"
    env.env = Wrapped(env.env)
    assert find_solver(env)(3) == "xxx"


def test_a_task_without_answers_cannot_be_imitated():
    with pytest.raises(UsageError, match="has no solution\\(task\\) to imitate"):
        find_solver(SimpleNamespace(env=Wrapped(gym.Env())))


def test_a_wrappers_own_answers_come_first():
    class Own(gym.Wrapper):
        def solution(self, task_id):
            return "own"

    env = tokens(Solved)
    env.env = Own(env.env)
    assert find_solver(env)(1) == "own"


class Foreign(TokenAction):
    """In the tokens of another model."""

    model = "smollm2-135m"


def test_another_task_takes_the_tokens_of_the_agents_own():
    own = tokens(Echo, max_new_tokens=5, max_length=80)
    made = like(Solved(max_turns=1), own)
    assert (made.model, made.max_new_tokens, made.max_length) == (own.model, 5, 80)
    assert like(own, own) is own
    other = Foreign(Solved(max_turns=1), max_new_tokens=3, max_length=64)
    with pytest.raises(UsageError, match="'smollm2-135m', the agent's model is 'tiny'"):
        like(other, own)


def test_answers_end_with_the_end_token_unless_they_fill_their_room():
    env = tokens(Solved)
    rules, (x,) = env.rules, env.rules.tokenizer.encode("x", add_special_tokens=False)
    prompts = drawn(env, 16)
    found = solved(prompts, find_solver(env), 16)
    for episode in found:
        answer = [token for token, own in zip(episode.ids, episode.written, strict=True) if own]
        number = answer.count(x)
        assert answer == [x] * number + [rules.eos] * (number < 3)
        assert not any(episode.written[: len(episode.ids) - len(answer)])
        assert episode.logps == episode.rewards == [0.0] * len(episode.ids)
    assert {sum(e.written) for e in found} == {2, 3}
    assert [e.group for e in found] == list(range(16))


def test_no_more_episodes_are_returned_than_asked_for_and_problems_are_drawn_until_there_are_enough():
    env = tokens(Solved)
    assert len(solved(drawn(env, 4), find_solver(env), 3)) == 3
    many = solved(drawn(env, 4), find_solver(env), 10)
    assert len(many) == 10 and [e.group for e in many] == list(range(10))
    prompts, draws = drawn(env, 4), []
    reset = prompts.reset
    prompts.reset = lambda: draws.append(1) or reset()
    solved(prompts, find_solver(env), 8)
    assert len(draws) == 2  # eight problems are two draws of four, not three


@pytest.mark.parametrize(
    ("answer", "words"),
    [("xxxx", "'xxxx' has 5 tokens, more than max_new_tokens=3"), (None, "has no reference answer to imitate")],
)
def test_answers_that_cannot_be_imitated_are_refused(answer, words):
    with pytest.raises(UsageError, match=words):
        solved(drawn(tokens(Solved)), lambda task: answer, 2)


class Count(LanguageTask):
    """Answer the number that is asked for, three times, each time the next one."""

    def draw(self, rng):
        return int(rng.integers(1, 4))

    def begin(self, task_id):
        return TaskEpisode(task_id, f"{task_id}?")

    def judge(self, episode, text):
        said = len(episode.answers) + 1
        is_right = text == self.solution_messages(episode.task)[said - 1]
        return TaskReply(f"{episode.task + said}?", float(is_right), said == 3, Verdict(is_right, 1.0, False, ""))

    def solution_messages(self, task_id):
        return [str(task_id + k) for k in range(3)]

    def solution(self, task_id):
        return str(task_id)


@pytest.mark.parametrize(("turns", "seen"), [(1, 1), (2, 2), (3, 3), (9, 3)])
def test_dialogues_are_imitated_turn_by_turn(turns, seen):
    env = TokenAction(Count(), max_new_tokens=3, max_length=64)
    prompts = drawn(env)
    for one in solved(prompts, find_solver(env), 6, turns):
        said = "".join(env.rules.tokenizer.decode([i]) for i, own in zip(one.ids, one.written, strict=True) if own)
        assert said == "".join(f"{one.task + k}</s>" for k in range(seen))
        assert one.turns == (seen if seen > 1 else 0)  # of a single answer nothing is said
        assert one.text == str(one.task + seen - 1)
        assert len(one.ids) == len(one.logps) == len(one.rewards)
        assert one.lengths == ([] if seen == 1 else [2] * seen)


def test_a_dialogue_ends_where_the_context_is_full_or_nothing_more_is_known():
    env = TokenAction(Count(), max_new_tokens=3, max_length=12)
    assert {one.turns for one in solved(drawn(env), find_solver(env), 4, 3)} == {2}
    env = TokenAction(Solved(max_turns=2), max_new_tokens=3, max_length=64)
    assert {one.turns for one in solved(drawn(env), find_solver(env), 4, 2)} == {0}


def test_rows_of_copies_cannot_be_followed():
    class Shouting(gym.ObservationWrapper):
        def observation(self, observation):
            return observation.upper()

    env = TokenAction(Shouting(Count()), max_new_tokens=3, max_length=64)
    assert solved(drawn(env), find_solver(env), 2)[0].text
    with pytest.raises(UsageError, match="without wrappers of one's own: take turns=1"):
        solved(drawn(env), find_solver(env), 2, turns=2)
