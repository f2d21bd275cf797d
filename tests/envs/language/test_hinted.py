"""Hints: pairs of id and fraction, cut from worked solutions, judged by the task below."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from polyathlon.envs.errors import UsageError
from polyathlon.envs.language import Hinted, LanguageTask, TaskEpisode, TaskReply, Verdict
from polyathlon.envs.models import load_tokenizer
from polyathlon.envs.probes import FixedAnswer, TableTask


class Sums(LanguageTask):
    """Add; the worked solution is not the answer."""

    def draw(self, rng):
        return int(rng.integers(9))

    def begin(self, task_id):
        return TaskEpisode(task_id, f"{task_id} + 1", data=[])

    def judge(self, episode, text):
        episode.data.append(episode.task)
        right = text == str(episode.task + 1)
        return TaskReply("", float(right), True, Verdict(right, float(right), False, ""))

    def refuse(self, episode, reason):
        assert isinstance(episode.task, int)
        return super().refuse(episode, reason)

    def solution(self, task_id):
        return str(task_id + 1)

    def worked(self, task_id):
        return "" if task_id == 8 else "count on by one"

    def prepare(self, answers):
        self.prepared = [episode.task for episode, _ in answers]


def test_a_hint_is_the_beginning_of_the_worked_solution():
    task = Hinted(Sums())
    assert [task.hint((3, f)) for f in (0.0, 0.25, 0.5, 1.0)] == ["", "coun", "count on", "count on by one"]
    assert len(task.hint((3, 0.25))) == round(0.25 * 15) and task.hint((8, 0.75)) == ""
    plain, hinted = task.start((3, 0.0)), task.start((3, 0.5))
    assert plain.observation == "3 + 1" and plain.messages == [{"role": "user", "content": "3 + 1"}]
    assert hinted.observation.startswith("3 + 1") and hinted.observation.endswith("count on")
    assert hinted.messages[-1]["content"] == hinted.observation
    tokens = Hinted(Sums(), unit="tokens", tokenizer=load_tokenizer("tiny"))
    assert tokens.hint((3, 0.5)) == "count on"  # bytes


def test_nothing_below_changes():
    inner = Sums()
    task = Hinted(inner)
    rng, other = np.random.default_rng(3), np.random.default_rng(3)
    assert task.draw(rng) == (inner.draw(other), 0.0)
    episode = task.start((3, 0.5))
    assert task.answer(episode, "4").reward == 1.0 and episode.data == [3] and episode.task == (3, 0.5)
    assert task.answer(task.start((3, 0.5)), "\x00").info["verdict"]["invalid"]
    assert task.solution((3, 0.5)) == "4" and task.worked((3, 0.5)) == "count on by one"
    batch = task.batch(2)
    batch.reset(tasks=[(3, 0.0), (4, 0.75)])
    assert batch.step(["4", "4"])[1].tolist() == [1.0, 0.0] and inner.prepared == [3, 4]
    again = task.batch(2)
    again.set_state(batch.get_state())
    assert again.tasks == [(3, 0.0), (4, 0.75)]
    assert task.reset(options={"task": (3, 0.5)})[0].endswith("count on")


def test_an_answer_may_go_on_where_the_hint_ends():
    inner = TableTask(2, 4, 8, seed=1)
    words = inner.solution(0).split()
    task = Hinted(inner, announcement=" ", continues=True)
    for fraction in (0.0, 0.25, 0.5, 0.75):
        episode = task.start((0, fraction))
        shown = episode.observation.split()[1:]
        assert shown == words[: len(shown)] and len(shown) == round(fraction * 4)
        assert task.answer(episode, " " + " ".join(words[len(shown) :])).reward == 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hinted(FixedAnswer()), "worked"),
        (lambda: Hinted(gym.make("CartPole-v1")), "language task"),
        (lambda: Hinted(Sums(), unit="token"), "tokens"),
        (lambda: Hinted(Sums(), unit="tokens"), "tokenizer="),
        (lambda: Hinted(Sums()).start(3), "pairs"),
        (lambda: Hinted(Sums()).start((3, 1.5)), "from 0 to 1"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_sums_have_worked_solutions_without_the_answer():
    pytest.importorskip("reasoning_gym")
    from polyathlon.envs.text.reasoning import Reasoning

    task = Reasoning("chain_sum", config={"min_terms": 3, "max_terms": 4})
    assert task.has_worked and not Reasoning("leg_counting").has_worked
    for i in range(20):
        item, lines = task.items.item(i), task.worked(i).split("\n")
        first = item["metadata"]["expression"].split()[0]
        total = None
        for line in lines:
            left, _, right = line.partition("=")
            total = sum(int(t) for t in left.replace("- ", "-").replace("+ ", "").split())
            assert right.strip() in ("", str(total)) and (line is lines[-1]) == (right.strip() == "")
        assert str(total) == task.solution(i) and lines[0].startswith(first)


class Held(Sums):
    """Holds something for each episode."""

    def __init__(self):
        super().__init__()
        self.started, self.released, self.is_closed = [], [], False

    def prepare_starts(self, task_ids):
        self.started += task_ids

    def release(self, episode):
        self.released.append(episode.task)

    def close(self):
        super().close()
        self.is_closed = True


def test_what_episodes_hold_is_given_back():
    task = Held()
    rows = Hinted(task).batch(2)
    rows.reset(tasks=[(1, 0.5), (2, 0.0)])
    rows.close()
    assert task.started == [1, 2] and task.released == [1, 2]  # the task was told of neither
    env = Hinted(task)
    env.reset(options={"task": (3, 0.0)})
    env.close()
    assert task.released == [1, 2, 3] and task.is_closed
