"""Language tasks: turns, verdicts, conversations, rows."""

from __future__ import annotations

import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from polyathlon.envs.errors import UsageError
from polyathlon.envs.language import LanguageBatch, LanguageTask, TaskEpisode, TaskReply, Utterance, Verdict, task_seed


class Guess(LanguageTask):
    """Guess a number from 0 to 99; too low, too high."""

    def draw(self, rng):
        return int(rng.integers(100))

    def begin(self, task_id):
        if not 0 <= task_id < 100:
            raise UsageError(f"no such number: {task_id}")
        return TaskEpisode(task_id, "Guess!", data={"tries": 0})

    def judge(self, episode, text):
        episode.data["tries"] += 1
        if not text.strip().isdecimal():
            return TaskReply("A number, please.", 0.0, False, Verdict(False, 0.0, True, "no number"))
        guess = int(text)
        if guess == episode.task:
            return TaskReply("", 1.0, True, Verdict(True, 1.0, False, "right", {"tries": float(episode.data["tries"])}))
        said = "higher" if guess < episode.task else "lower"
        return TaskReply(said, 0.0, False, Verdict(False, 0.0, False, said))

    def solution(self, task_id):
        return str(task_id)


def test_an_episode_with_its_verdicts_conversation_and_log():
    env = Guess()
    text, info = env.reset(seed=0, options={"task": 40})
    assert text == "Guess!" and info == {"task": 40, "messages": [{"role": "user", "content": "Guess!"}]}
    text, reward, terminated, truncated, info = env.step("10")
    assert (text, reward, terminated, truncated) == ("higher", 0.0, False, False)
    assert info["verdict"] == {"correct": False, "score": 0.0, "invalid": False, "reason": "higher", "parts": {}}
    assert type(info["verdict"]) is dict
    text, reward, terminated, truncated, info = env.step("40")
    assert (text, reward, terminated, truncated) == ("", 1.0, True, False)
    assert info["verdict"]["correct"] and info["verdict"]["parts"] == {"tries": 2.0}
    assert info["messages"] == [
        {"role": "user", "content": "Guess!"},
        {"role": "assistant", "content": "10"},
        {"role": "user", "content": "higher"},
        {"role": "assistant", "content": "40"},
    ]
    assert [(turn["observation"], turn["action"], turn["reward"]) for turn in info["episode_log"]] == [
        ("Guess!", "10", 0.0),
        ("higher", "40", 1.0),
    ]
    assert env.solution(40) == "40"


def test_infos_are_copies():
    env = Guess()
    _, info = env.reset(options={"task": 3})
    info["messages"][0]["content"] = "changed"
    info["messages"].append({})
    _, _, _, _, after = env.step("1")
    assert after["messages"][0]["content"] == "Guess!" and len(after["messages"]) == 3
    after["episode_log"].clear()
    assert len(env.step("2")[4]["episode_log"]) == 2


def test_the_turn_limit_truncates_unless_the_task_ends_first():
    env = Guess(max_turns=2)
    env.reset(options={"task": 5})
    assert env.step("1")[2:4] == (False, False)
    assert env.step("2")[2:4] == (False, True)
    with pytest.raises(UsageError, match="call reset"):
        env.step("5")
    env.reset(options={"task": 5})
    env.step("1")
    assert env.step("5")[2:4] == (True, False)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("a\x00b", "control character U+0000"),
        ("\x1b[31m5", "control character U+001B"),
        ("\x85", "control character U+0085"),
        ("5\ud800", "lone surrogate (U+D800)"),
        ("5" * 1_000_000, "1000000 characters; at most 65536 are read"),
    ],
)
def test_what_cannot_be_read_is_a_verdict_and_never_an_exception(answer, reason):
    env = Guess()
    env.reset(options={"task": 5})
    text, reward, terminated, _, info = env.step(answer)
    assert (text, reward, terminated) == ("", 0.0, True)
    assert info["verdict"]["invalid"] and reason in info["verdict"]["reason"]
    # the conversation can be written down and stays short
    kept = info["messages"][-2 if info["messages"][-1]["role"] == "user" else -1]["content"]
    assert kept.encode() and len(kept) < 70_000


@pytest.mark.parametrize("answer", ["tab\t1", "line\n2\r\n", "", "שלום 🌍", "\u200b\u202e"])
def test_ordinary_texts_of_any_script_are_read(answer):
    env = Guess()
    env.reset(options={"task": 5})
    assert env.step(answer)[4]["verdict"]["reason"] == "no number"


@pytest.mark.parametrize("action", [5, b"5", None, ["5"], np.int64(5)])
def test_an_action_that_is_no_text_is_a_type_error(action):
    env = Guess()
    env.reset()
    with pytest.raises(TypeError, match="takes text"):
        env.step(action)


def test_the_error_for_a_token_names_the_wrapper():
    env = Guess()
    env.reset()
    with pytest.raises(TypeError, match="TokenAction"):
        env.step(np.int64(7))


def test_usage_errors():
    with pytest.raises(UsageError, match="max_turns must be a positive integer, got 0"):
        Guess(max_turns=0)
    with pytest.raises(UsageError, match="max_answer must be a positive integer"):
        Guess(max_answer=-3)
    with pytest.raises(UsageError, match="call reset before step"):
        Guess().step("1")
    with pytest.raises(UsageError, match="unknown reset option 'tusk'"):
        Guess().reset(options={"tusk": 1})
    with pytest.raises(UsageError, match="no such number: 100"):
        Guess().reset(options={"task": 100})


def test_check_env_has_no_complaints():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(Guess(max_turns=3), skip_render_check=True)


def drawn(env, n, seed):
    tasks = [env.reset(seed=seed)[1]["task"]]
    return tasks + [env.reset()[1]["task"] for _ in range(n - 1)]


def test_the_task_depends_on_seed_and_episode_alone():
    expected = [int(task_seed(7, episode).integers(100)) for episode in range(5)]
    assert drawn(Guess(), 5, 7) == expected
    env = Guess()
    env.reset(seed=7)
    env.step("1")
    env.reset(options={"task": 3})  # a given task counts as an episode
    assert env.reset()[1]["task"] == expected[2]
    assert drawn(Guess(), 5, 8) != expected
    assert drawn(env, 5, 7) == expected


@pytest.mark.parametrize("rows", [1, 6])
def test_row_i_of_a_batch_is_the_scalar_environment_with_seed_plus_i(rows):
    batch = Guess().batch(rows)
    assert isinstance(batch, LanguageBatch) and len(batch) == rows
    tasks = []
    for episode in range(3):
        texts, infos = batch.reset(seed=20 if episode == 0 else None)
        assert texts == ["Guess!"] * rows and batch.tasks == [info["task"] for info in infos]
        tasks.append(batch.tasks)
    for i in range(rows):
        assert [episode[i] for episode in tasks] == drawn(Guess(), 3, 20 + i)


def test_a_batch_steps_like_scalar_environments():
    batch, envs = Guess(max_turns=3).batch(4), [Guess(max_turns=3) for _ in range(4)]
    batch.reset(seed=1)
    for i, env in enumerate(envs):
        env.reset(seed=1 + i)
    for answers in (["50"] * 4, ["x", "\x00", "25", "75"]):
        texts, rewards, terminated, truncated, infos = batch.step(answers)
        assert rewards.dtype == np.float32 and terminated.dtype == truncated.dtype == np.bool_
        for i, env in enumerate(envs):
            assert (texts[i], rewards[i], terminated[i], truncated[i], infos[i]) == env.step(answers[i])
    with pytest.raises(UsageError, match="call reset"):
        batch.step(["1"] * 4)


def test_rows_of_a_batch_step_and_reset_apart():
    batch = Guess().batch(4)
    batch.reset(seed=0, tasks=[1, 2, 3, 4])
    _, rewards, terminated, _, _ = batch.step(["4", "2"], rows=[3, 1])
    assert rewards.tolist() == [1, 1] and terminated.all()
    texts, infos = batch.reset(tasks=[9], rows=[1])
    assert texts == ["Guess!"] and infos[0]["task"] == 9 and batch.tasks == [1, 9, 3, 4]
    batch.reset(seed=[70, 80], rows=[0, 2])
    assert batch.tasks[0] == drawn(Guess(), 1, 70)[0] and batch.tasks[2] == drawn(Guess(), 1, 80)[0]


def test_a_batch_says_what_is_wrong():
    with pytest.raises(UsageError, match="n must be a positive integer, got 0"):
        Guess().batch(0)
    batch = Guess().batch(2)
    with pytest.raises(UsageError, match="row 0 has no episode yet"):
        batch.step(["1", "2"])
    batch.reset()
    with pytest.raises(UsageError, match="got 1 answers for 2 rows"):
        batch.step(["1"])
    with pytest.raises(UsageError, match="tasks has 3 entries for 2 rows"):
        batch.reset(tasks=[1, 2, 3])
    with pytest.raises(UsageError, match="seed has 1 entries for 2 rows"):
        batch.reset(seed=[1])
    for rows in ([0, 0], [2], [-1]):
        with pytest.raises(UsageError, match="rows must be different numbers from 0 to 1"):
            batch.reset(rows=rows)
    with pytest.raises(UsageError, match="the state holds 2 rows, this batch has 3"):
        Guess().batch(3).set_state(batch.get_state())


def play(env, answers):
    return [env.step(answer) for answer in answers]


def test_a_state_continues_to_the_same_episode_and_the_same_next_one():
    env = Guess()
    env.reset(seed=11)
    play(env, ["10", "x"])
    state = pickle.loads(pickle.dumps(env.get_state()))
    expected = (play(env, ["60", "99"]), env.reset())
    other = Guess()
    other.set_state(state)
    assert (play(other, ["60", "99"]), other.reset()) == expected
    fresh = Guess()
    fresh.set_state(Guess().get_state())
    with pytest.raises(UsageError, match="call reset before step"):
        fresh.step("1")


def test_a_batch_state_continues_too():
    batch = Guess().batch(3)
    batch.reset(seed=5)
    batch.step(["50", "60", "x"])
    state = pickle.loads(pickle.dumps(batch.get_state()))
    other = Guess().batch(3)
    other.set_state(state)
    assert repr(other.step(["1", "2", "3"])) == repr(batch.step(["1", "2", "3"]))
    assert other.reset() == batch.reset()


def test_a_pickled_environment_goes_on_alike():
    env = Guess()
    env.reset(seed=2)
    env.step("50")
    copied = pickle.loads(pickle.dumps(env))
    assert play(copied, ["1", "2"]) == play(env, ["1", "2"])


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_gymnasium_vector_environments_run_language_tasks(mode):
    makers = [lambda: Guess(max_turns=1)] * 3
    vector = gym.vector.SyncVectorEnv(makers) if mode == "sync" else gym.vector.AsyncVectorEnv(makers)
    try:
        texts, infos = vector.reset(seed=30)
        assert tuple(texts) == ("Guess!",) * 3
        assert [int(task) for task in infos["task"]] == [drawn(Guess(), 1, 30 + i)[0] for i in range(3)]
        texts, _, terminated, truncated, infos = vector.step(("x", "\ud800", str(drawn(Guess(), 1, 32)[0])))
        assert terminated.tolist() == [False, True, True] and truncated.tolist() == [True, False, False]
        assert list(infos["verdict"]["correct"]) == [False, False, True]
        texts, rewards, *_ = vector.step(("", "", ""))  # the step that resets ignores the action
        assert tuple(texts) == ("Guess!",) * 3 and rewards.tolist() == [0, 0, 0]
    finally:
        vector.close()


def test_spaces_are_texts():
    env = Guess(max_answer=10, max_bytes=50)
    assert env.observation_space == Utterance(50) and env.action_space == Utterance(50)
    env.reset()
    assert "11 characters; at most 10" in env.step("1" * 11)[4]["verdict"]["reason"]
