from __future__ import annotations

import json
import pickle
import time
import zipfile

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import polyathlon  # noqa: F401
from polyathlon.envs.errors import UsageError
from polyathlon.envs.functions import bfcl
from polyathlon.envs.functions.entries import BUILTIN, CATEGORIES, in_split, read_entries
from polyathlon.envs.functions.function_call import FunctionCall, category_names

THERE = [name for name in CATEGORIES if (BUILTIN / f"{name}.json").is_file()]
SINGLE = [name for name in THERE if not name.startswith("multi_turn")]
TURNS = [name for name in THERE if name.startswith("multi_turn")]


def play(task: FunctionCall, task_id: str, messages: list[str]):
    """Play messages; returns the rewards and the last info."""
    task.reset(options={"task": task_id})
    rewards = []
    for message in messages:
        _, reward, terminated, truncated, info = task.step(message)
        rewards.append(reward)
        if terminated or truncated:
            break
    return rewards, info


def test_the_default_needs_no_download():
    env = gym.make("polyathlon/FunctionCall-v0", category="simple_python")
    text, info = env.reset(options={"task": "simple_python_0"})
    assert "triangle_area(base: float, height: float)" in text and text.endswith("base 10 and height 5.")
    assert [message["role"] for message in info["messages"]] == ["system", "user"]
    _, reward, terminated, _, info = env.step("[triangle_area(base=10, height=5)]")
    assert reward == 1 and terminated and info["verdict"]["correct"]


def test_several_dozen_problems_are_built_in():
    assert sum(len(read_entries(BUILTIN, name)) for name in THERE) >= 100
    assert {"simple_java", "simple_javascript", "parallel_multiple", "irrelevance", "multi_turn_miss_func"} <= set(
        THERE
    )
    assert set(category_names()) == set(CATEGORIES)


@pytest.mark.parametrize("category", THERE)
def test_reference_messages_earn_everything(category):
    task = FunctionCall(category)
    for task_id in task.ids:
        rewards, info = play(task, task_id, task.solution_messages(task_id))
        assert sum(rewards) == 1 and info["verdict"]["correct"], (task_id, info["verdict"])
        assert task.solution(task_id) == task.solution_messages(task_id)[0]


@pytest.mark.parametrize("category", SINGLE)
def test_prompts_leave_the_smallest_context_room_for_an_answer(category):
    task = FunctionCall(category)
    for task_id in task.ids:
        text, _ = task.reset(options={"task": task_id})
        assert len(text.encode()) < 470


def test_dense_rewards_are_made_of_parts():
    task = FunctionCall("parallel_multiple", reward="dense")
    right = task.solution("parallel_multiple_0")
    first, second = right[1:-1].split("), ")
    for text, reward, parts in [
        (right, 1.0, (1, 1, 1, 1)),
        (f"[{first})]", 0.1 + 0.35, (0, 1, 0, 0.5)),
        (right.replace("Rome", "Roma"), 0.1 + 0.2 + 0.35, (0, 1, 1, 0.5)),
        ("[other()]", 0.1, (0, 1, 0, 0)),
        ("no", 0.0, (0, 0, 0, 0)),
    ]:
        rewards, info = play(task, "parallel_multiple_0", [text])
        assert rewards == [pytest.approx(reward)]
        assert tuple(info["verdict"]["parts"][key] for key in ("exact", "format", "names", "matched")) == parts
    assert second


def test_exact_rewards_know_right_and_wrong_only():
    task = FunctionCall("parallel_multiple")
    rewards, info = play(task, "parallel_multiple_0", [task.solution("parallel_multiple_0").replace("Rome", "Roma")])
    assert rewards == [0.0] and not info["verdict"]["correct"] and not info["verdict"]["invalid"]
    assert info["verdict"]["reason"] == "wrong value (origin)"


@pytest.mark.parametrize(
    ("category", "text", "reward"),
    [
        ("irrelevance", "I cannot do that.", 1.0),
        ("irrelevance", "[]", 1.0),
        ("irrelevance", "[bmi(weight=1, height=1)]", 0.0),
        ("irrelevance", "\0", 0.0),
        ("live_relevance", "[anything(a=1)]", 1.0),
        ("live_relevance", "no", 0.0),
        ("live_relevance", "[]", 0.0),
    ],
)
def test_calls_where_none_or_any_is_right(category, text, reward):
    assert play(FunctionCall(category), f"{category}_0", [text])[0] == [reward]


BAD = [
    "", "x" * 1_000_000, "```\n[f(a=1)]\n```\n```\n[f()]\n```", "```python\n[f(", "\0", b"\xff\xfe".decode("latin-1"), "\udcff",
    "[f(a=" + "[" * 5000 + "]" * 5000 + ")]", "[f(a=" + "9" * 5000 + ")]", "[f(a=0x" + "f" * 50_000 + ")]", "[f(a=f(a=f(a=1)))]",
    "[unknown(a=1)]", "[triangle_area(base=1, base=2, height=3)]", "[triangle_area(**base)]", "[read_note(title=[[1]])]", "[read_note()]",
    "[read_note(title=read_note(title=read_note(title='a')))]", "[read_note(title={'read_note': {'title': {'x': {}}}})]", "[read_note(read_note=1)]",
    "[write_note(title={'a': 1}, text=...)]", "[__init__(a=1)]", "[_load_scenario(state={})]", "[notes.clear()]", "[" + "list_notes()," * 2000 + "]",
]  # fmt: skip


@pytest.mark.parametrize("category", ["simple_python", "simple_java", "irrelevance", "multi_turn_base"])
@pytest.mark.parametrize("text", BAD, ids=lambda text: ascii(text[:14]))
def test_bad_answers_are_verdicts(category, text):
    task = FunctionCall(category)
    start = time.process_time()
    rewards, info = play(task, f"{category}_0", [text])
    assert time.process_time() - start < 2.0
    verdict = info["verdict"]
    assert verdict["reason"] and rewards[0] in (0.0, 1.0)
    assert rewards[0] == 0.0 or category == "irrelevance"
    json.dumps(info["messages"])


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(THERE),
    st.lists(st.text(max_size=30) | st.text("[](){}=,.'\" abf1", max_size=30), min_size=1, max_size=3),
)
def test_any_text_is_a_verdict(category, texts):
    task = FunctionCall(category, reward="dense")
    rewards, info = play(task, task.ids[0], texts)
    assert 0.0 <= sum(rewards) <= 1.0 and info["verdict"]["reason"]


# ------------------------------------------------------------------------------------------------------- conversations


def test_results_are_told_and_the_next_request_follows():
    task = FunctionCall("multi_turn_base")
    text, info = task.reset(options={"task": "multi_turn_base_0"})
    assert "read_note(title: string) Read a note." in text and text.endswith("Read my note shopping.")
    text, reward, terminated, _, _ = task.step("[read_note(title='shopping'), nothing(a=1)]")
    assert text == 'read_note: {"text": "milk"}\nnothing: Error during execution: name \'nothing\' is not defined'
    assert reward == 0 and not terminated
    text, *_, info = task.step("It says milk.")
    assert text == "Add bread to it." and info["verdict"]["reason"] == "turn 1 is right"
    task.step("[append_note(title='shopping', text='bread')]")
    _, reward, terminated, _, info = task.step("Done.")
    assert reward == 1 and terminated and info["verdict"]["parts"] == {"exact": 1.0, "turns": 1.0, "calls": 3.0}


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (["Done."], "nothing was executed in turn 1"),
        (["[read_note(title='ideas')]", "Done."], "a result of turn 1 is missing"),
        (["[read_note(title='shopping'), write_note(title='x', text='')]", "Done."], "the state after turn 1"),
        (["[read_note(title='shopping')]"] * 21, "more than 20 messages of calls in turn 1"),
    ],
)
def test_the_first_wrong_turn_ends_a_conversation(messages, reason):
    rewards, info = play(FunctionCall("multi_turn_base", reward="dense"), "multi_turn_base_0", messages)
    assert len(rewards) == len(messages) and rewards[-1] == 0 and info["verdict"]["reason"].startswith(reason)


def test_dense_conversations_pay_the_share_of_right_turns():
    messages = ["[read_note(title='shopping')]", "Done.", "Done."]
    assert play(FunctionCall("multi_turn_base", reward="dense"), "multi_turn_base_0", messages)[0] == [0.0, 0.0, 0.5]
    assert play(FunctionCall("multi_turn_base"), "multi_turn_base_0", messages)[0] == [0.0, 0.0, 0.0]
    unreadable = [*messages[:2], "\0"]
    assert play(FunctionCall("multi_turn_base", reward="dense"), "multi_turn_base_0", unreadable)[0] == [0.0, 0.0, 0.5]


def test_turns_without_reference_calls_are_checked_when_asked_for():
    messages = ["[list_notes()]", "Done.", "[delete_note(title='ideas')]", "Done.", "[list_notes()]", "Done."]
    assert sum(play(FunctionCall("multi_turn_miss_func"), "multi_turn_miss_func_0", messages)[0]) == 1
    rewards, info = play(FunctionCall("multi_turn_miss_func", strict_empty=True), "multi_turn_miss_func_0", messages)
    assert sum(rewards) == 0 and info["verdict"]["reason"] == "calls were executed in turn 1, where none helps"


def test_functions_that_were_held_back_are_announced():
    task = FunctionCall("multi_turn_miss_func")
    text, _ = task.reset(options={"task": "multi_turn_miss_func_0"})
    assert "delete_note" not in text
    text, *_ = task.step("I cannot.")
    assert text.startswith("There are more functions now:\ndelete_note(title: string)")


def test_a_conversation_is_pickled_and_resumed():
    task = FunctionCall("multi_turn_base")
    task.reset(options={"task": "multi_turn_base_1"})
    task.step("[transfer(source='home', target='car', amount=100)]")
    other, copy = FunctionCall("multi_turn_base"), pickle.loads(pickle.dumps(task))
    other.set_state(task.get_state())
    for one in (task, other, copy):
        text, *_ = one.step("Done.")
        assert text == "How much is in car now?"
        one.step("[get_balance(account='car')]")
        assert one.step("220")[1] == 1


# ------------------------------------------------------------------------------------------------ candidates and splits


@pytest.mark.parametrize("category", THERE)
def test_candidates_hold_a_right_answer_and_depend_on_the_task_alone(category):
    task, twin = FunctionCall(category), FunctionCall(category)
    places = []
    for task_id in task.ids:
        task.reset(options={"task": task_id}), twin.reset(options={"task": task_id})
        found = task.current_candidates()
        assert found == twin.current_candidates() and len(set(found)) == len(found) and 2 <= len(found) <= 6
        if category in SINGLE:
            right = [k for k, text in enumerate(found) if play(task, task_id, [text])[0] == [1.0]]
            assert right
            places += right if len(right) == 1 else []
        else:
            assert task.solution(task_id) in found or not task.entries[task_id].gold[0]
    assert category not in ("multiple", "simple_python") or len(set(places)) > 2, "the right answer moves about"


def test_every_turn_of_a_conversation_offers_the_right_message():
    task = FunctionCall("multi_turn_base")
    for task_id in task.ids:
        task.reset(options={"task": task_id})
        for message in task.solution_messages(task_id):
            assert message in task.current_candidates()
            *_, info = task.step(message)
        assert info["verdict"]["correct"]


def test_splits_are_a_partition():
    train, test = (set(FunctionCall("multiple", split=split).ids) for split in ("train", "test"))
    assert train | test == set(FunctionCall("multiple").ids) and not train & test and test
    assert in_split("multiple_0", "all")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(category="simple_pyton"), "Did you mean 'simple_python'"),
        (dict(category="live_simple"), "there are: irrelevance.*polyathlon fetch bfcl"),
        (dict(reward="exactly"), "Did you mean 'exact'"),
        (dict(style="xml"), "unknown style"),
        (dict(split="trian"), "Did you mean 'train'"),
        (dict(strict_empty=1), "strict_empty must be True or False"),
        (dict(source="/nowhere"), "there is no folder"),
        (dict(render_mode="human"), "draws nothing"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        FunctionCall(**options)


@pytest.mark.parametrize("task_id", [3, None, "multiple_0", ["a"]])
def test_unknown_problems_are_refused(task_id):
    task = FunctionCall()
    with pytest.raises((UsageError, TypeError), match="there is no problem|unhashable"):
        task.begin(task_id)


def test_the_json_style_shows_the_schemas():
    text, _ = FunctionCall(style="json").reset(options={"task": "simple_python_0"})
    assert json.loads(text.splitlines()[1])[0]["parameters"]["required"] == ["base", "height"]


# ------------------------------------------------------------------------------------------------------------- sources


def test_problems_come_from_a_folder(tmp_path):
    line = {
        "id": "own_0",
        "question": [[{"role": "user", "content": "Ring twice."}]],
        "function": [
            {
                "name": "ring",
                "parameters": {"type": "dict", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
            }
        ],
    }
    (tmp_path / "possible_answer").mkdir()
    (tmp_path / "BFCL_v4_multiple.json").write_text(json.dumps(line))
    (tmp_path / "possible_answer" / "BFCL_v4_multiple.json").write_text(
        json.dumps({"id": "own_0", "ground_truth": [{"ring": {"n": [2]}}]})
    )
    task = FunctionCall("multiple", source=tmp_path)
    assert play(task, "own_0", ["[ring(n=2)]"])[0] == [1.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no problems"),
        ("{", "no file of JSON lines"),
        ('{"id": "a"}', "is not of the form"),
        ("[1]", "is not of the form"),
        ('{"id": "a", "question": [[]], "function": [], "ground_truth": {"f": 1}}', "ground_truth of a is a list"),
        (
            '{"id": "a", "question": [[]], "function": [], "ground_truth": [{"f": {"x": 1}}]}',
            "ground_truth of a is a list",
        ),
        ('{"id": "a", "question": [[]], "function": []}', "ground_truth"),
    ],
)
def test_damaged_problems_are_refused(tmp_path, content, message):
    (tmp_path / "multiple.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        FunctionCall("multiple", source=str(tmp_path))


def wheel(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bfcl_eval/data/BFCL_v4_multiple.json", (BUILTIN / "multiple.json").read_text())
        archive.writestr("bfcl_eval/data/unused_datasets/x.json", "{}")
        archive.writestr("bfcl_eval/eval_checker/multi_turn_eval/func_source_code/math_api.py", "class MathAPI: pass")
        archive.writestr("bfcl_eval/__main__.py", "raise SystemExit")
    return path


def test_the_wheel_is_fetched_once_and_unpacked_as_data(tmp_path, monkeypatch, capsys):
    calls = []

    def download(requirement, folder, sha256):
        calls.append((requirement, sha256))
        return wheel(folder / "x.whl")

    monkeypatch.setenv("POLYATHLON_CACHE", str(tmp_path))
    monkeypatch.setattr(bfcl, "download_wheel", download)
    for _ in range(2):
        folder = bfcl.fetch_bfcl()
    assert calls == [(bfcl.REQUIREMENT, bfcl.SHA256)] and "once" in capsys.readouterr().err
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "BFCL_v4_multiple.json", "LICENCE.txt", "apis/math_api.py",
    ]  # fmt: skip
    assert len(FunctionCall("multiple", source="bfcl").ids) == 25


def test_a_wheel_with_another_hash_is_refused(tmp_path, monkeypatch):
    import subprocess

    from polyathlon.envs.data import wheels

    def run(command, **options):
        wheel(tmp_path / "x.whl")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(wheels.subprocess, "run", run)
    with pytest.raises(UsageError, match=r"has the hash .* not the published file"):
        wheels.download_wheel("bfcl-eval", tmp_path, "00")
    assert wheels.download_wheel("bfcl-eval", tmp_path).name == "x.whl"
    monkeypatch.setattr(
        wheels.subprocess, "run", lambda command, **options: subprocess.CompletedProcess(command, 1, "", "no network")
    )
    with pytest.raises(UsageError, match="no network\nWith a network, install it by hand"):
        wheels.download_wheel("bfcl-eval", tmp_path)


def test_the_hub_is_an_alternative(tmp_path, monkeypatch):
    import types

    hub = types.SimpleNamespace(snapshot_download=lambda name, **options: str(BUILTIN) if name == "a/b" else 1 / 0)
    monkeypatch.setattr(bfcl, "require", lambda module, extra: hub)
    assert len(FunctionCall("multiple", source="hub:a/b").ids) == 25
    with pytest.raises(UsageError, match=r"could not be taken from the hub .*give a folder"):
        FunctionCall("multiple", source="hub:c/d")
    with pytest.raises(UsageError, match="named by a string or a path"):
        FunctionCall(source=3)


def test_draws_are_even():
    task = FunctionCall("parallel")
    rng = np.random.default_rng(0)
    drawn = [task.draw(rng) for _ in range(800)]
    assert min(drawn.count(one) for one in task.ids) > 60


def test_lines_end_where_json_says(tmp_path):
    text = "one\u2028two\u0085three"  # ends of lines for Python, not for JSON
    line = json.loads((BUILTIN / "multiple.json").read_text().split("\n")[0])
    line["question"][0][0]["content"] = text
    (tmp_path / "multiple.json").write_text(json.dumps(line, ensure_ascii=False), "utf-8")
    assert text in FunctionCall("multiple", source=tmp_path).reset(seed=0)[0]
    (tmp_path / "possible_answer").mkdir()
    (tmp_path / "possible_answer" / "multiple.json").write_text('{"ground_truth": []}')
    read_entries.cache_clear()
    with pytest.raises(UsageError, match="not of the form"):
        FunctionCall("multiple", source=tmp_path)
