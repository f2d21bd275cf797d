"""Judge-v0 and MultipleChoice-v0: labels, balance, parts, files, and what is refused."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest

import polyathlon  # noqa: F401 (registers the environments)
from polyathlon.envs.errors import UsageError
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskReply, Verdict
from polyathlon.envs.text.choices import MultipleChoice, letters_of, negated, soft_subset
from polyathlon.envs.text.judge import Judge, choice_of, critique_prompt, judge_prompt, tag_of
from polyathlon.envs.text.right_and_wrong import AnswerSource, read_records


class Doubling(LanguageTask):
    """Double a number; any form of the number is right."""

    def draw(self, rng):
        return int(rng.integers(1, 40))

    def begin(self, task_id):
        return TaskEpisode(task_id, f"twice {task_id}?")

    def judge(self, episode, text):
        right = text.strip().lstrip("0") == str(2 * episode.task)
        return TaskReply("", float(right), True, Verdict(right, float(right), False, ""))

    def solution(self, task_id):
        return str(2 * task_id)


class Silent(Doubling):
    solution = LanguageTask.solution


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return path


# ------------------------------------------------------------------------------------------------ Judge-v0


def test_the_right_answer_stands_in_either_place_as_often():
    task = Judge(task=Doubling())
    ids = [task.draw(np.random.default_rng(i)) for i in range(600)]
    first = sum(order == 0 for _, _, order in ids)
    assert abs(first - 300) < 4 * np.sqrt(150)
    said = [task.answer(task.start(i), "<think>.</think>\\boxed{1}") for i in ids]
    assert abs(np.mean([s.info["verdict"]["correct"] for s in said]) - 0.5) < 4 * np.sqrt(0.25 / 600)
    for i in ids[:20]:
        one, other = task.start(i), task.start(task.swapped(i))
        right = str(2 * i[0])
        assert (
            (f"Answer 1:\n{right}\n" in one.observation)
            == (i[2] == 0)
            != (f"Answer 1:\n{right}\n" in other.observation)
        )
        assert task.answer(one, task.solution(i)).reward == 1.0
        assert task.answer(other, task.solution(i)).info["verdict"]["parts"] == {"verdict": 0.0, "format": 1.0}


@pytest.mark.parametrize(
    ("text", "reward", "is_read"),
    [
        ("<think>a</think> so \\boxed{ 1 }", 1.0, True),
        ("\\boxed{1}", 0.9, True),
        ("1", 0.9, True),
        ("<think>1</think> 1", 0.9, True),
        ("<think>a</think>\\boxed{2}", 0.1, True),
        ("\\boxed{1} no, \\boxed{2}", 0.0, True),
        ("<think>a</think>\\boxed{3}", 0.1, False),
        ("Answer 1", 0.0, False),
        ("", 0.0, False),
        ("\x00", 0.0, False),
    ],
)
def test_rewards_of_judgements(text, reward, is_read):
    task = Judge(task=Doubling())
    step = task.answer(task.start((3, 0, 0)), text)
    assert step.reward == pytest.approx(reward) and step.info["verdict"]["invalid"] is not is_read
    assert set(step.info["verdict"]["parts"]) == {"verdict", "format"} and step.terminated


@pytest.mark.parametrize(
    ("score", "suggestion", "wanted"),
    [
        ("Incorrect", "06", (1, 1, 1)),  # the task itself says that 06 is right
        ("Incorrect", "7", (1, 1, 0)),
        ("Correct", "6", (1, 0, 1)),
        ("Wrong", "6", (0, 0, 1)),
    ],
)
def test_critiques_count_verdict_and_suggestion(score, suggestion, wanted):
    task = Judge(task=Doubling(), kind="critique")
    text = f"<thinking>hm</thinking><score>{score}</score><suggestion>{suggestion}</suggestion>"
    step = task.answer(task.start((3, 0, 1)), text)
    assert tuple(step.info["verdict"]["parts"].values()) == wanted and step.reward == pytest.approx(sum(wanted) / 3)
    weighted = Judge(task=Doubling(), kind="critique", weights=(0.1, 1.0, 0.0))
    step = weighted.answer(weighted.start((3, 0, 1)), text)
    assert step.reward == pytest.approx((0.1 * wanted[0] + wanted[1]) / 1.1)
    for order in (0, 1):
        assert task.answer(task.start((3, 5, order)), task.solution((3, 5, order))).reward == 1.0
    assert task.answer(task.start((3, 0, 1)), "Incorrect").info["verdict"]["invalid"]
    assert critique_prompt("q", "a") in critique_prompt("q", "a") and tag_of("<a>x</a><a> y </a>", "a") == "y"


def test_pairs_from_a_file(tmp_path):
    rows = [
        {"question": "q", "chosen": "good", "rejected": "bad"},
        {"question": "r", "answers": ["no", "yes"], "label": 2},
    ]
    task = Judge(pairs=write(tmp_path / "pairs.jsonl", rows))
    assert {task.draw(np.random.default_rng(i))[0] for i in range(20)} == {0, 1}
    assert task.start((1, 0, 0)).observation == judge_prompt("r", "yes", "no")
    assert task.start((0, 0, 1)).observation == judge_prompt("q", "bad", "good")
    actions = [
        {"question": "q", "action": "left", "label": "Incorrect", "suggestion": "right"},
        {"question": "q", "action": "up", "label": "Correct", "suggestion": "up"},
    ]
    critic = Judge(pairs=write(tmp_path / "actions.jsonl", actions), kind="critique")
    for i, order, label in ((0, 0, "Correct"), (0, 1, "Incorrect"), (1, 0, "Correct"), (1, 1, "Correct")):
        assert f"<score>{label}</score>" in critic.solution((i, 0, order))
        assert critic.answer(critic.start((i, 0, order)), critic.solution((i, 0, order))).reward == 1.0


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        ({"question": "q", "chosen": "a ", "rejected": "a"}, "preference", "equal pairs"),
        ({"question": "q", "answers": ["a", "b"]}, "preference", "lacks a label"),
        ({"question": "q", "answers": ["a", "b"], "label": 3}, "preference", "lacks a label"),
        ({"chosen": "a", "rejected": "b"}, "preference", "lacks the key"),
        ({"question": "q", "action": "a", "label": "yes", "suggestion": "b"}, "critique", "'Correct' or 'Incorrect'"),
        ({"question": "q", "action": "a", "label": "Correct", "suggestion": "b"}, "critique", "says otherwise"),
        (
            {"question": [{"type": "image"}], "chosen": "a", "rejected": "b"},
            "preference",
            "record 1: question must be a text",
        ),
        (
            {"question": "q", "chosen": {"image": "a.png"}, "rejected": "b"},
            "preference",
            "chosen must be a text or a number",
        ),
        ({"question": "q", "answers": ["a", None], "label": 1}, "preference", "an answer must be a text or a number"),
    ],
)
def test_records_that_mean_nothing_are_refused(row, kind, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        Judge(pairs=write(tmp_path / "x.jsonl", [row]), kind=kind)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Judge(task=Silent()), "no right answers"),
        (lambda: Judge(task=gym.make("CartPole-v1")), "language task"),
        (lambda: Judge(task=Doubling(), kind="preferences"), "preference"),
        (lambda: Judge(task=Doubling(), weights=(0, 0, 0)), "weights"),
        (lambda: Judge(task=Doubling(), weights=(float("inf"), 1, 1)), "finite"),  # its rewards were NaN
        (lambda: MultipleChoice(task=Doubling(), format_weight=float("inf")), "finite"),
        (lambda: Judge(task=Doubling(), render_mode="human"), "render_mode"),
        (lambda: Judge(pairs="no_such_file.jsonl"), "there is no file"),
        (lambda: Judge(task=Doubling()).start(3), "order 0 or 1"),
        (lambda: AnswerSource(Doubling(), {"a": 1}), "made already"),
        (lambda: MultipleChoice(task=Doubling(), options=1), "2..26"),
        (lambda: MultipleChoice(task=Doubling(), invert=2.0), "invert"),
        (lambda: MultipleChoice(task=Silent()), "no right answers"),
        (lambda: Judge(task_kwargs={"taks": "gcd"}), "unknown option of polyathlon/Reasoning-v0 in task_kwargs 'taks'"),
        (lambda: Judge(task_kwargs=3), "task_kwargs must be a dict such as"),
        (lambda: Judge(task="polyathlon/Raesoning-v0"), "no id of an environment.*Did you mean"),
        (lambda: Judge(task=3), "a language task, got 3"),
        (lambda: Judge(task=Doubling(), weights=3), "weights are those of format"),
        (lambda: MultipleChoice(task_kwargs={"taks": "gcd"}), "Did you mean 'task'"),
        (lambda: MultipleChoice(task=Doubling(), invert="x"), "invert must lie between 0 and 1, got 'x'"),
        (lambda: MultipleChoice(questions=[]), "holds no records: give at least one"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text("{\n")
    (tmp_path / "b.jsonl").write_text("[1]\n")
    (tmp_path / "c.jsonl").write_text("\n")
    for name, message in (("a", "no JSON"), ("b", "no record"), ("c", "holds no records")):
        with pytest.raises(UsageError, match=message):
            read_records(tmp_path / f"{name}.jsonl", ("question",))
    (tmp_path / "d.parquet").write_bytes(b"")
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match="polyathlon\\[data\\]"):
            read_records(tmp_path / "d.parquet", ("question",))


def test_wrong_answers_are_wrong_by_the_tasks_own_verdict():
    source, rng = AnswerSource(Doubling()), np.random.default_rng(0)
    for task in range(1, 20):
        wrong = source.wrong(task, rng, 12)
        assert len(set(wrong)) == 12 and not any(source.is_right(task, text) for text in wrong)
    assert choice_of("\\boxed{2}") == 2 and choice_of("12") is None


# ------------------------------------------------------------------------------------------------ MultipleChoice-v0


def test_soft_rewards_by_hand():
    right = {"A", "B", "D"}
    for said, paid in (({"A", "B"}, 2 / 3), ({"A", "C"}, 0), (right, 1), ({""}, 0), (set(), 0)):
        assert soft_subset(said, right) == pytest.approx(paid)
    assert letters_of("<think>A, B</think> <answer> a,D </answer>") == {"A", "D"} and letters_of("B C.") == {"B", "C"}
    assert letters_of("") == {""}


def make_choice(tmp_path, **words):
    rows = [
        {"question": "Which is even?", "options": ["1", "2", "3", "4"], "answers": ["2", "D"]},
        {"question": "Which one did fly?", "options": ["bird", "dog", "cat"], "answers": [0]},
    ]
    return MultipleChoice(questions=write(tmp_path / "q.jsonl", rows), **words)


def test_questions_with_one_and_with_several_right_options(tmp_path):
    task = make_choice(tmp_path)
    for number in range(20):
        asked = task.question((0, number))
        assert {asked.options["ABCD".index(c)] for c in asked.right} == {"2", "4"}
        one = min(asked.right)
        for text, reward in (
            (task.solution((0, number)), 1.0),
            (f"<answer>{one}</answer>", 0.75),
            (one, 0.25),
            ("A, B, C, D", 0.0),
            ("<answer>E</answer>", 0.5),
            ("none", 0.0),
        ):
            assert task.answer(task.start((0, number)), text).reward == pytest.approx(reward), text
    assert len({task.question((0, number)).options for number in range(20)}) > 5
    hard = make_choice(tmp_path, soft=False, format_weight=0.0)
    assert hard.answer(hard.start((0, 1)), min(hard.question((0, 1)).right)).reward == 0
    assert hard.answer(hard.start((0, 1)), ", ".join(hard.question((0, 1)).right)).reward == 1


def test_questions_are_turned_round(tmp_path):
    task = make_choice(tmp_path, invert=1.0)
    sizes = set()
    for number in range(30):
        asked = task.question((1, number))
        right = {asked.options["ABC".index(c)] for c in asked.right}
        assert (
            asked.text == "Which one did not fly?"
            and set(asked.options) == right | {"bird"}
            and right <= {"dog", "cat"}
        )
        sizes.add(len(right))
        assert task.question((0, number)).text == "Which is even?"  # several right ones stay
    assert sizes == {1, 2}
    assert negated("It did not rain?") == "It did rain?" and negated("Name one.").startswith(
        "Which of these is no right"
    )


def test_questions_of_any_task():
    task = MultipleChoice(task=Doubling(), options=5)
    asked = task.question((7, 3))
    assert len(set(asked.options)) == 5 and [asked.options["ABCDE".index(c)] for c in asked.right] == ["14"]
    assert task.answer(task.start((7, 3)), task.solution((7, 3))).reward == 1.0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "options": ["a", "b"], "answers": []}, "0 of 2"),
        ({"question": "q", "options": ["a", "b"], "answers": ["a", "b"]}, "2 of 2"),
        ({"question": "q", "options": ["a", "a"], "answers": ["a"]}, "different texts"),
        ({"question": "q", "options": ["a", {"image": "b.png"}], "answers": ["a"]}, "an option must be a text"),
        ({"question": "q", "options": ["aa", "bb"], "answers": ["cc"]}, "none of its options"),
        ({"question": "q", "options": ["aa", "bb"], "answers": [2]}, "none of its options"),
    ],
)
def test_options_without_a_right_one_are_refused(row, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        MultipleChoice(questions=write(tmp_path / "x.jsonl", [row]))
