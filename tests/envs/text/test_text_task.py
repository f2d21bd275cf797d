"""Prompts-v0: prompts of files, reward functions as TRL calls them, models and judges, parts, and what is refused."""

from __future__ import annotations

import json
import math

import gymnasium as gym
import numpy as np
import pytest

import polyathlon  # noqa: F401 (registers the environments)
from polyathlon.envs.errors import UsageError
from polyathlon.envs.text.reward_functions import scorers_of
from polyathlon.envs.text.text_task import TextTask
from polyathlon.wrappers import TokenAction

ROWS = [{"question": f"{i} + {i}?", "answer": str(2 * i), "level": i} for i in range(6)]
CALLS: list[dict] = []


def reward_length(prompts, completions, **kwargs):
    CALLS.append({"prompts": prompts, "completions": completions, **kwargs})
    return [float(len(text)) for text in completions]


def reward_right(completions, answer, **kwargs):
    return [1.0 if said == right else 0.0 for said, right in zip(completions, answer, strict=True)]


def reward_some(prompts, completions, level):
    """No **kwargs: only what it names is given."""
    return [None if each < 3 else 0.5 for each in level]


def reward_chat(prompts, completions, **kwargs):
    assert prompts[0][-1]["role"] == "user" and completions[0][0]["role"] == "assistant"
    return np.array([float("yes" in completion[0]["content"]) for completion in completions])


def task_of(reward=reward_right, rows=ROWS, **words):
    return TextTask.from_records(rows, reward=reward, prompt="question", answer="answer", **words)


def answered(task, texts, ids=None):
    batch = task.batch(len(texts))
    prompts, _ = batch.reset(tasks=list(range(len(texts))) if ids is None else ids)
    _, rewards, terminated, _, infos = batch.step(texts)
    assert terminated.all()
    return prompts, rewards.tolist(), [info["verdict"] for info in infos]


def test_a_reward_function_gives_what_it_gives_by_hand_columns_included():
    CALLS.clear()
    texts = ["0", "22", "333"]
    prompts, rewards, verdicts = answered(task_of(reward_length), texts)
    by_hand = reward_length(prompts=[row["question"] for row in ROWS[:3]], completions=texts)
    assert rewards == by_hand == [1, 2, 3] and prompts == [row["question"] for row in ROWS[:3]]
    assert len(CALLS) == 2 and verdicts[1]["parts"] == {"reward_length": 2.0}  # all rows in one call
    given = CALLS[0]
    assert given["answer"] == ["0", "2", "4"] and given["level"] == [0, 1, 2] and given["prompts"] == prompts
    env = task_of()
    env.reset(options={"task": 4})
    _, reward, terminated, _, info = env.step("8")
    assert (reward, terminated, info["verdict"]["correct"]) == (1.0, True, True)


def test_several_functions_are_components_and_none_does_not_apply():
    task = task_of([reward_right, reward_some], weights=(1.0, 2.0))
    _, rewards, verdicts = answered(task, ["2", "2", "x"], [1, 4, 4])
    assert rewards == [1.0, 1.0, 1.0]
    assert math.isnan(verdicts[0]["parts"]["reward_some"]) and verdicts[1]["parts"] == {
        "reward_right": 0.0,
        "reward_some": 0.5,
    }
    assert [v["correct"] for v in verdicts] == [True, False, False]
    assert [s.name for s in scorers_of([reward_right, reward_right])] == ["reward_right", "reward_right_2"]
    _, rewards, _ = answered(task_of(reward_some), ["a"], [0])
    assert rewards == [0.0]  # nothing applies


def test_conversations_come_as_messages():
    rows = [{"prompt": [{"role": "system", "content": "Brief."}, {"role": "user", "content": "So?"}]}]
    task = TextTask(rows, judge=reward_chat)
    env = TokenAction(task)
    _, info = env.reset()
    assert [m["role"] for m in info["messages"]] == ["system", "user"]
    text = env.tokenizer.decode(env.rules.prompt(info["messages"]))
    assert "Brief." in text and "So?" in text
    assert answered(task, ["yes", "no"], [0, 0])[1] == [1.0, 0.0]


def test_without_a_judge_the_reference_decides():
    _, rewards, verdicts = answered(TextTask(), ["paris", " Tokyo. ", "x"])
    assert rewards == [1.0, 1.0, 0.0] and [v["correct"] for v in verdicts] == [True, True, False]
    env = gym.make("polyathlon/Prompts-v0")
    _, info = env.reset(seed=3)
    assert env.unwrapped.solution(info["task"]) in ("Paris", "Tokyo", "Nairobi", "Lima", "Oslo", "Cairo")


class Longer:
    def p_win(self, prompts, a, b):
        assert prompts[0].endswith("?")
        return [float(len(x) > len(y)) + 0.5 * (len(x) == len(y)) for x, y in zip(a, b)]


class Scores:
    def score(self, prompts, answers):
        return [-1.0 for _ in answers]


def test_judges_of_pairs_compare_with_the_reference():
    _, rewards, verdicts = answered(task_of(Longer()), ["100", "7", ""])
    assert rewards == [1.0, 0.5, 0.0] and [v["correct"] for v in verdicts] == [True, True, False]
    assert answered(task_of(Scores()), ["a"])[1] == [-1.0]

    class Wrong(Longer):
        def p_win(self, prompts, a, b):
            return [1.5] * len(a)

    with pytest.raises(UsageError, match=r"p_win is one number in \[0, 1\]"):
        answered(task_of(Wrong()), ["1"])
    with pytest.raises(UsageError, match="row 1 of the list has none"):
        answered(TextTask([{"prompt": "p?"}], judge=Longer()), ["1"])


def test_a_reward_model_s_folder_judges(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    from polyathlon.envs.models import load_tokenizer

    tokenizer = load_tokenizer("tiny")
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_labels=1,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.LlamaForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "rm"), tokenizer.save_pretrained(tmp_path / "rm")
    task = task_of(tmp_path / "rm")
    _, rewards, verdicts = answered(task, ["a", "long answer"])
    for row, text, reward in zip(ROWS, ("a", "long answer"), rewards):
        ids = [
            tokenizer.bos_token_id,
            *tokenizer.encode(row["question"] + "\n" + text, add_special_tokens=False),
            tokenizer.eos_token_id,
        ]
        with torch.no_grad():
            expected = float(model(torch.tensor([ids])).logits)
        assert reward == pytest.approx(expected, abs=1e-6)
    assert list(verdicts[0]["parts"]) == ["rm"]


def test_prompts_that_are_held_out_are_another_task(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    words = {"holdout": 0.3, "columns": {"prompt": "question", "reference": "answer"}}
    train, held = TextTask(str(path), **words), TextTask(str(path), held_out=True, **words)
    assert len(held.task_ids) == 2 and sorted([*train.task_ids, *held.task_ids]) == list(range(6))
    assert {held.draw(np.random.default_rng(i)) for i in range(30)} == set(held.task_ids)
    assert train.records is held.records


def raises(prompts, completions, **kwargs):
    raise RuntimeError("no server")


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (raises, r"'raises' raised RuntimeError: no server .*row 1 of the list"),
        (lambda prompts, completions, **k: "good", "returned 'good' for 2 samples"),
        (lambda prompts, completions, **k: [1.0], "returned 1 values for 2 samples"),
        (lambda prompts, completions, **k: [1.0, "x"], "returned 'x' for row 2 of the list and the answer 'b'"),
        (lambda prompts, completions, **k: [1.0, math.nan], "returned nan for row 2"),
        (lambda prompts, completions, **k: None, "returned None for 2 samples"),
    ],
)
def test_rewards_that_are_none_are_refused_with_the_sample(reward, message):
    with pytest.raises(UsageError, match=message):
        answered(task_of(reward), ["a", "b"])


def test_bad_words_are_refused():
    for reward, message in (
        ([], "empty list"),
        (3, "a judge is a reward function"),
        ("no_module:f", "cannot be imported"),
        ("math:sqr", r"unknown function of the module 'math' 'sqr'. Did you mean 'sqrt'"),
        ("no/such/folder", "no/such/folder"),
    ):
        with pytest.raises(UsageError, match=message):
            task_of(reward)
    with pytest.raises(UsageError, match="one finite number for each of 1"):
        task_of(reward_right, weights=(1, 2))
    with pytest.raises(UsageError, match="holdout is 0"):
        task_of(held_out=True)
    with pytest.raises(UsageError, match="render_mode"):
        task_of(render_mode="human")
    with pytest.raises(UsageError, match="0 to 5"):
        task_of().begin(6)
    with pytest.raises(UsageError, match="lacks 'prompt'|Is 'question' meant"):
        TextTask(ROWS)
    with pytest.raises(UsageError, match="nothing says how good"):
        answered(TextTask([{"prompt": "p"}]), ["a"])
    with pytest.raises(UsageError, match="call tools"):
        TextTask([{"prompt": "p", "tools": [{"name": "f"}]}]).reset()
