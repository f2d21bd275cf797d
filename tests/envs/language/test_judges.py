"""Judges: both ways round, of scores, of a task's verdict, of a model's next token; what they may not say."""

from __future__ import annotations

import math

import pytest
import torch

from polyathlon.envs.errors import UsageError
from polyathlon.envs.language.judges import FunctionJudge, Judge, ModelJudge, ScoreJudge, VerdictJudge, make_judge
from polyathlon.envs.models import load_model, load_tokenizer, render_prompt
from polyathlon.envs.models.reward_models import save_scorer
from polyathlon.envs.models.scorers import TextScorer
from polyathlon.envs.probes import TableTask

PROMPTS, A, B = ["one", "two", "three"], ["long answer", "x", "same"], ["short", "yy", "same"]


def prefers_first(prompts, a, b):
    """Prefer the longer answer, and the first one by its place."""
    return [min(0.5 + 0.1 * (len(x) - len(y)) + 0.2, 1.0) for x, y in zip(a, b)]


def test_a_judge_is_asked_both_ways_round():
    judge = make_judge(prefers_first)
    forward, backward = judge.p_win(PROMPTS, A, B), judge.p_win(PROMPTS, B, A)
    assert [p + q for p, q in zip(forward, backward)] == pytest.approx([1, 1, 1])
    assert forward[2] == 0.5 and forward[0] == pytest.approx((1 + 1 - 0.1) / 2)
    assert judge.p_win([], [], []) == []


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([0.5, 0.5], "2 numbers for 3 pairs"),
        ([0.5, 1.5, 0.5], "gave 1.5 for pair 1"),
        ([0.5, 0.5, math.nan], "nan for pair 2"),
        (["A", 0.5, 0.5], "'A' for pair 0"),
        ([None, 0.5, 0.5], "None for pair 0"),
        (0.5, "1 numbers for 3 pairs"),
    ],
)
def test_other_than_one_number_a_pair_is_refused(said, message):
    with pytest.raises(UsageError, match=message):
        FunctionJudge(lambda prompts, a, b: said).p_win(PROMPTS, A, B)


def test_numbers_of_prompts_and_answers_must_agree():
    with pytest.raises(UsageError, match="3 prompts, 3 and 2 answers"):
        make_judge(prefers_first).p_win(PROMPTS, A, B[:2])


def test_scores_become_probabilities():
    judge = ScoreJudge(lambda prompts, answers: [float(len(answer)) for answer in answers])
    found = judge.p_win(PROMPTS, A, B)
    assert found == pytest.approx([1 / (1 + math.exp(-6)), 1 / (1 + math.exp(1)), 0.5])
    far = ScoreJudge(lambda prompts, answers: [1e4 * len(answer) for answer in answers]).p_win(PROMPTS, A, B)
    assert far == pytest.approx([1, 0, 0.5])


def test_the_tasks_own_verdict_is_a_judge():
    task = TableTask(3, 2, 4)
    right = [" ".join(map(str, target.tolist())) for target in task.targets]
    wrong = ["3 3" if text != "3 3" else "2 2" for text in right]
    judge = make_judge(None, task)
    assert isinstance(judge, VerdictJudge)
    assert judge.p_win([0, 1, 2], right, [wrong[0], right[1], wrong[2]]) == [1, 0.5, 1]
    assert judge.p_win([0, 1], wrong[:2], right[:2]) == [0, 0]
    with pytest.raises(UsageError, match="give judge="):
        make_judge(None)


def test_a_reward_models_folder_is_a_judge(tmp_path):
    model = load_model("tiny")
    head = torch.randn(1, model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    norm = {"mean": 100.0, "std": 1e-3, "clamp": 1.0}
    folder = save_scorer(tmp_path / "reward", model, head, load_tokenizer("tiny"), norm)
    scores = TextScorer(str(folder), normalised=False)
    a, b = scores.score(PROMPTS, A), scores.score(PROMPTS, B)
    want = [1 / (1 + math.exp(y - x)) for x, y in zip(a, b)]
    assert make_judge(str(folder)).p_win(PROMPTS, A, B) == pytest.approx(want, abs=1e-5)
    assert make_judge(scores).p_win(PROMPTS, A, B) == pytest.approx(want, abs=1e-5)


def test_a_language_model_is_asked_for_a_letter():
    judge = ModelJudge("tiny", batch=2)
    found = judge.p_win(PROMPTS, A, B)
    assert found[2] == pytest.approx(0.5, abs=1e-6) and found[0] != 0.5
    model, tokenizer = load_model("tiny"), load_tokenizer("tiny")

    def p(a, b):
        text = judge.template.format(prompt=PROMPTS[1], a=a, b=b)
        ids = torch.tensor([render_prompt(tokenizer, [{"role": "user", "content": text}])])
        letters = [tokenizer.encode(word, add_special_tokens=False)[0] for word in "AB"]
        return float(model(input_ids=ids).logits[0, -1, letters].softmax(-1)[0])

    assert found[1] == pytest.approx((p(A[1], B[1]) + 1 - p(B[1], A[1])) / 2, abs=1e-5)
    assert judge.p_win([[{"role": "user", "content": "two"}]], ["x"], ["yy"])[0] == pytest.approx(found[1], abs=1e-5)
    with pytest.raises(UsageError, match=r"needs \{b\}"):
        ModelJudge("tiny", template="{prompt} {a}")
    with pytest.raises(UsageError, match="different tokens"):
        ModelJudge("tiny", words=("A", "A"))


def test_what_says_a_judge():
    path = f"{__name__}:prefers_first"
    assert make_judge(path).p_win(PROMPTS, A, B) == make_judge(prefers_first).p_win(PROMPTS, A, B)
    judge = Judge()
    assert make_judge(judge) is judge
    with pytest.raises(UsageError, match="no function that can be imported"):
        make_judge("no_such_module:f")
    with pytest.raises(UsageError, match="a judge is a Judge"):
        make_judge(3)


def test_answers_cannot_show_the_other_one_in_their_place(monkeypatch):
    asked = []

    def render(tokenizer, messages):
        asked.append(messages[0]["content"])
        return render_prompt(tokenizer, messages)

    monkeypatch.setattr("polyathlon.envs.models.render_prompt", render)
    ModelJudge("tiny").judge(["why?"], ["I say {b} to {prompt}"], ["no"])
    assert "Answer A: I say {b} to {prompt}" in asked[0] and "Answer B: no" in asked[0]
