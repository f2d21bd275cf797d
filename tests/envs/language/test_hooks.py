"""What language tasks are told of the episodes of a batch, and how they say that one broke outside the policy."""

from __future__ import annotations

import numpy as np
import pytest

from polyathlon.agents.language.episodes import Episode, play, unbroken
from polyathlon.agents.language.signal import differing_groups
from polyathlon.envs.errors import UsageError
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskReply, Verdict
from polyathlon.envs.random import make_keys
from polyathlon.wrappers import TokenAction


class Pages(LanguageTask):
    """Pages that are opened for all rows at once; "end" ends, "crash" loses the page, task 9 has none to begin with."""

    def __init__(self, **words):
        super().__init__(**words)
        self.calls, self.ready, self.open = [], [], []

    def draw(self, rng):
        return int(rng.integers(9))

    def prepare_starts(self, task_ids):
        self.calls.append(("starts", tuple(task_ids), tuple(self.open)))
        self.ready += list(task_ids)

    def begin(self, task_id):
        if task_id in self.ready:
            self.ready.remove(task_id)
        self.open.append(task_id)
        episode = TaskEpisode(task_id, f"page {task_id}")
        if task_id == 9:
            self.fail(episode, "browser", "no page")
        return episode

    def judge(self, episode, text):
        if text == "crash":
            return self.fail(episode, "browser", "the page was lost")
        return TaskReply("again", 0.25, text == "end", Verdict(True, 1.0, False, ""))

    def release(self, episode):
        self.calls.append(("release", episode.task))
        self.open.remove(episode.task)


def released(task):
    return [call[1] for call in task.calls if call[0] == "release"]


def test_a_batch_prepares_all_starts_at_once_after_the_old_episodes_are_released():
    task = Pages()
    rows = task.batch(3)
    rows.reset(tasks=[1, 2, 3])
    assert task.calls == [("starts", (1, 2, 3), ())] and task.open == [1, 2, 3] and not task.ready
    rows.step(["x", "end", "x"])
    assert released(task) == [2]
    rows.reset(tasks=[4, 5], rows=[1, 2])  # row 1 is over already, row 2 is left early
    assert task.calls[-1] == ("starts", (4, 5), (1,)) and released(task) == [2, 3]
    rows.close()
    rows.close()
    assert released(task) == [2, 3, 1, 4, 5] and task.open == []
    with pytest.raises(UsageError, match="over"):
        rows.step(["x", "x", "x"])


def test_drawn_tasks_are_prepared_in_the_order_of_the_rows():
    task = Pages()
    rows = task.batch(2)
    rows.reset(seed=5)
    alone = [LanguageTask.reset(env, seed=5 + i)[1]["task"] for i, env in enumerate((Pages(), Pages()))]
    assert task.calls[0][1] == tuple(alone) == tuple(rows.tasks)


def test_the_scalar_environment_releases_too():
    env = Pages()
    env.reset(options={"task": 1})
    env.reset(options={"task": 2})
    env.step("end")
    env.reset(options={"task": 3})
    env.close()
    assert released(env) == [1, 2, 3] and env.open == []


def test_a_failure_truncates_with_reward_0_and_its_siblings_go_on():
    rows = Pages().batch(3)
    rows.reset(tasks=[1, 9, 2])
    said, reward, terminated, truncated, infos = rows.step(["crash", "x", "x"])
    assert reward.tolist() == [0.0, 0.0, 0.25]
    assert terminated.tolist() == [False] * 3 and truncated.tolist() == [True, True, False]
    assert [info.get("failure") for info in infos] == [
        {"kind": "browser", "message": "the page was lost"},
        {"kind": "browser", "message": "no page"},
        None,
    ]
    assert released(rows.task) == [1, 9]


def test_rows_come_back_from_their_state_with_what_they_hold():
    task, other = Pages(), Pages()
    rows, again = task.batch(4), other.batch(4)
    rows.reset(tasks=[1, 2, 3, 4])
    rows.step(["crash", "end", "x", "x"])
    rows.give_up([3])
    again.set_state(rows.get_state())
    assert other.calls[0][:2] == ("starts", (1, 2, 3, 4)) and other.open == task.open == [3]
    assert again.get_state() == rows.get_state()


def test_failed_episodes_are_marked_and_left_out_of_groups(monkeypatch):
    def generate(model, starts, rules, keys, stream, *words, **windows):
        from polyathlon.agents.language.generation import Completion

        ids = [[*rules.tokenizer.encode(text, add_special_tokens=False), rules.eos] for text in ("end", "crash")]
        return [Completion(row, [0.0] * len(row), "eos") for row in ids]

    monkeypatch.setattr("polyathlon.agents.language.episodes.generate", generate)
    rows = TokenAction(Pages(), max_new_tokens=8, max_length=64).batch(2)
    whole, broken = play(object(), rows, [1, 2], [0, 0], make_keys(torch_arange(2), torch_arange(2)))
    assert whole.failure is None and broken.failure == {"kind": "browser", "message": "the page was lost"}
    assert not broken.finished and broken.total == 0.0


def torch_arange(n):
    import torch

    return torch.arange(n)


def episode(group, reward, is_broken=False):
    failure = {"kind": "x", "message": "y"} if is_broken else None
    return Episode([5, 7], [False, True], [0.0, -1.0], [0.0, reward], group, failure=failure)


def test_who_is_left_alone_in_a_group_is_not_learnt_from():
    rows = [episode(0, 1.0), episode(0, 0.0, True), episode(1, 1.0), episode(1, 0.0), episode(2, 1.0)]
    assert unbroken(rows) == rows[2:]
    assert differing_groups(rows[:4], 2) == [False, True]
    assert differing_groups([episode(0, 1.0), episode(1, 0.0, True), episode(2, 0.0)], 1) == [True]
    assert differing_groups([episode(0, 1.0), episode(1, 0.0, True), episode(2, 1.0)], 1) == [False]


def test_evaluation_counts_failures_apart():
    from polyathlon.evaluation import evaluate

    said = iter(["end", "crash", "end"])
    found = evaluate(Pages(), lambda text, mask: next(said), 3)
    assert found.rewards == [0.25, 0.25] and found.measures["failed"] == 1.0
    with pytest.raises(UsageError, match="all 2 episodes broke"):
        evaluate(Pages(), lambda text, mask: "crash", 2)
    assert "failed" not in evaluate(Pages(), lambda text, mask: "end", 1).measures


def test_an_agent_counts_failures_and_learns_from_the_rest():
    from polyathlon.agents import LanguageAgent

    class Flaky(Pages):
        """Every third episode has no page."""

        begun = 0

        def begin(self, task_id):
            episode = super().begin(task_id)
            self.begun += 1
            if self.begun % 3 == 0:
                self.fail(episode, "browser", "gone")
            return episode

    agent = LanguageAgent(
        "tiny", TokenAction(Flaky(), max_new_tokens=4, max_length=64), num_prompts=4, group_size=2, seed=0
    )
    agent._setup_learn(8, None)
    agent._episodes = agent.collect_episodes()
    broken = sum(e.failure is not None for e in agent._episodes)
    assert 0 < broken < 8 and len(agent.ep_info_buffer) == 8 - broken
    agent.train()
    assert agent.logger.name_to_value["rollout/failed"] == broken
    assert np.isfinite(agent.logger.name_to_value["train/loss"])
