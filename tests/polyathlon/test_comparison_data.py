"""Comparisons over data: equal records, equal completions and judge calls, who is asked what, and what is refused."""

from __future__ import annotations

import csv
import json
import re

import pytest

import polyathlon
from polyathlon import comparison_page
from polyathlon.agents import LanguageAgent
from polyathlon.cli import main
from polyathlon.comparison_data import SharedData, counts
from polyathlon.comparison_page import plain_number
from polyathlon.comparison_results import Outcome, Results
from polyathlon.comparison_runs import CURVE_EPISODES, Setting
from polyathlon.envs.errors import UsageError
from polyathlon.envs.probes import TableTask
from polyathlon.records import record_pairs, record_scored, records
from polyathlon.run_folder import RunFolder
from polyathlon.wrappers import TokenAction

from .comparison_names import ENV, HERE, MODEL

PROMPTS, TOKENS = 6, 4
SMALL = {
    "model": MODEL,
    "warm_start": 0,
    "episodes": 8,
    "seeds": 2,
    "agent_kwargs": {"num_prompts": 8, "learning_rate": 0.3},
    "wrapper_kwargs": {"max_new_tokens": 1},
}


def counting(prompts):
    """Answer the tokens in turn."""
    return [str(i % TOKENS) for i in range(len(prompts))]


def share_of_zeros(prompts, completions, **columns):
    """Judge of the tests: 1 for the token 0."""
    return [float(messages[0]["content"].strip() == "0") for messages in completions]


JUDGE = f"{__name__}:share_of_zeros"


@pytest.fixture
def no_picture(monkeypatch):
    monkeypatch.setattr(comparison_page, "draw", lambda results, path: None)


@pytest.fixture
def pairs(tmp_path):
    """Of each prompt the right answer and a wrong one, for the four tokens in turn."""
    return record_pairs(counting, TableTask(PROMPTS, 1, TOKENS), tmp_path / "pairs.jsonl", problems=64, answers=TOKENS)


def compared(names, pairs, on=ENV, **words):
    return polyathlon.compare(names, on, data=pairs, out=pairs.parent / "run", **{**SMALL, **words})


def test_recipes_read_equally_many_records_or_write_equally_many_judged_answers(pairs, no_picture):
    found = compared(["dpo", "pref_ft", "hypo", "copg_online"], pairs, records=16)
    rows = {row.name: row.counted for row in found.results.rows()}
    assert rows["dpo"] == rows["pref_ft"] == {"records": 16, "written": 0, "judged": 0}
    assert rows["hypo"] == {
        "records": 16,
        "written": 32,
        "judged": 0,
    }  # two fresh answers a record, whose reward nobody reads
    assert rows["copg_online"] == {"records": 0, "written": 32, "judged": 32}  # as many as 16 pairs have answers
    taken = {run.name: run.completions for run in found.results.outcomes}
    assert taken == {"dpo": 32, "pref_ft": 16, "hypo": 64, "copg_online": 32}
    page, folder = found.page.read_text(), found.page.parent
    learnt = len(records(pairs).split(0.05)[0])
    for said in (
        f"{learnt} to learn from and {len(records(pairs)) - learnt} held out",
        "Each run: 16 records, 32 completions of a recipe that reads none",
        "Judge: the task's own verdict",
        "| dpo | 16 | 0 | 0 |",
        "| copg_online | 0 | 32 | 32 |",
    ):
        assert said in page, said
    line = next(csv.DictReader((folder / "comparison.csv").open(newline="")))
    assert (line["name"], line["records"], line["written"], line["judged"]) == ("dpo", "16", "0", "0")
    config = RunFolder(folder / "runs" / "dpo-seed0").config()
    assert config.agent_kwargs["data"] == str(pairs) and config.total_timesteps == 32
    assert "data" not in RunFolder(folder / "runs" / "copg_online-seed0").config().agent_kwargs


def test_pairs_teach_what_they_prefer(pairs, no_picture):
    words = {"seeds": 3, "records": 160, "episodes": 100}
    rows = compared([f"{HERE}:STILL", "dpo"], pairs, completions=64, **words).results.rows()
    assert rows[1].verdict == "better" and rows[1].difference.low > 0.2


def test_without_an_environment_held_out_prompts_are_asked_and_judged_by_what_is_named(pairs, no_picture):
    found = compared(["dpo", "copg_online"], pairs, on=None, reward=JUDGE, records=88, holdout=0.3, warm_start=None)
    page = found.page.read_text()
    assert found.results.setting.env == "polyathlon/Prompts-v0" and found.results.setting.warm_start == 0
    assert f"Judge: `{JUDGE}`" in page and "answers to held-out prompts" in page
    run = RunFolder(found.page.parent / "runs" / "dpo-seed0")
    assert run.config().env_kwargs == {
        "data": str(pairs),
        "holdout": 0.3,
        "judge": JUDGE,
    }  # learns where nothing is held out
    curve = found.results.of("dpo")[0].curves
    assert "accuracy on held-out pairs" in curve and "score" not in curve
    assert re.search(r"\| dpo \|.*\| – \|\n", page)  # plays nothing in training, so it reaches no threshold


def test_held_out_prompts_alone_give_the_scores(pairs, no_picture, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "polyathlon.comparison_runs.score_agent",
        lambda agent, env, episodes, seed: asked.append(env.unwrapped.units.tolist()) or polyathlon.evaluation.Evaluation([0.0], [1]),
    )  # fmt: skip
    compared(["dpo", "ipo"], pairs, on=None, reward=JUDGE, records=8, holdout=0.3)
    held = records(pairs).split(0.3)[1].tolist()
    assert len(held) and all(units == held for units in asked) and len(asked) == 4


def test_lists_of_any_length_count_as_records(tmp_path, no_picture):
    path = record_scored(counting, TableTask(PROMPTS, 1, TOKENS), tmp_path / "lists.jsonl", problems=40, answers=3)
    found = compared(["copg", "dpo"], path, records=16, seeds=2)
    assert [row.counted["records"] for row in found.results.rows()] == [16, 16]
    assert {run.name: run.completions for run in found.results.outcomes} == {"copg": 48, "dpo": 32}


def test_a_comparison_goes_on_with_the_same_rows_alone(pairs, no_picture):
    first = compared(["dpo", "ipo"], pairs, records=16)
    when = (first.page.parent / "runs" / "dpo-seed0" / "result.json").stat().st_mtime_ns
    again = compared(["ipo", "dpo", "hinge"], pairs, records=16)
    assert [row.name for row in again.results.rows()] == ["ipo", "dpo", "hinge"]
    assert (first.page.parent / "runs" / "dpo-seed0" / "result.json").stat().st_mtime_ns == when
    with pytest.raises(UsageError, match="records was 16, now 8"):
        compared(["dpo", "ipo"], pairs, records=8)
    pairs.write_text("".join(pairs.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UsageError, match="digest was"):
        compared(["dpo", "ipo"], pairs, records=16)


def test_agents_learn_from_a_dataset_beside_those_that_take_none(tmp_path, monkeypatch, no_picture):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    polyathlon.datasets.record("random", "Pendulum-v1", episodes=1, dataset_id="compared/pendulum-v0", seed=1)
    words = {"seeds": 2, "episodes": 1, "steps": 4, "out": tmp_path / "run"}
    found = polyathlon.compare(["td3_bc", "bc"], "Pendulum-v1", data="compared/pendulum-v0", **words)
    kept = [RunFolder(tmp_path / "run" / "runs" / f"{name}-seed0").config().agent_kwargs for name in ("td3_bc", "bc")]
    assert kept == [{"stats_window_size": CURVE_EPISODES, "dataset": "compared/pendulum-v0"}] * 2
    assert found.results.setting.config("ppo", 0).agent_kwargs == {"stats_window_size": CURVE_EPISODES}
    assert "| name | episodes | steps |" in found.page.read_text() and "token" not in found.page.read_text()
    assert "Data: `compared/pendulum-v0`" in found.page.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dpo", "grpo", "--on", ENV], "dpo: the recipe 'dpo' learns from records: give data=FILE .--data FILE."),
        (["copg", "grpo", "--on", ENV], "records; copg_online learns from its own answers"),
        (["grpo", "rloo", "--on", ENV, "--data", "PAIRS"], "nobody reads data= .--data.: grpo and rloo"),
        (["grpo", "rloo", "--data", "PAIRS"], "nothing judges answers.*--reward.*--on ENV"),
        (["grpo", "dpo", "--data", "PAIRS", "--reward", JUDGE, "--holdout", "0"], "holds none out"),
        (["sac", "dpo", "--data", "PAIRS", "--reward", JUDGE], "sac answers no prompts.*--on ENV"),
        (["dpo", "ipo", "--on", ENV, "--data", "PAIRS", "--completions", "9"], "give --records"),
        (["grpo", "rloo", "--data", "PAIRS", "--reward", JUDGE, "--records", "9"], "leave --records out"),
        (["dpo", "ipo", "--on", ENV, "--data", "PAIRS", "--records", "0"], "records must be a positive integer"),
        (["dpo", "ipo", "--on", ENV, "--data", "PAIRS", "--steps", "9", "--records", "9"], "leave records"),
        (["dpo", "ipo", "--on", ENV, "--data", "PAIRS", "--reward", JUDGE], "judges by itself"),
        (["grpo", "rloo", "--on", ENV, "--holdout", "0.1"], "holdout=0.1 is a share of data"),
        (["sac", "td3", "--on", "Pendulum-v1", "--data", "PAIRS", "--steps", "9"], "nobody reads data="),
        (["dpo", "ipo", "--on", ENV, "--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["td3_bc", "ppo", "--on", "Pendulum-v1", "--data", "a/b-v0", "--steps", "9", "--holdout", "0.1"], "share of records"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused_in_a_line(words, message, pairs, capsys):
    given = [str(pairs) if word == "PAIRS" else word for word in words]
    model = [] if {"Pendulum-v1", "sac"} & set(words) else ["--model", MODEL, "--warm-start", "0"]
    code = main(["compare", *given, *model, "--out", str(pairs.parent / "run")])
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and re.search(message, error), error
    assert not (pairs.parent / "run").exists()


def even(prompts, a, b):
    """Judge of pairs of the tests."""
    return [0.5] * len(a)


def test_pairs_that_a_judge_compares_are_calls_beside_the_task_s_own():
    env = TokenAction(TableTask(PROMPTS, 1, TOKENS), model=MODEL, max_new_tokens=1)
    words = {"recipe": "nash_md", "num_prompts": 2, "group_size": 4, "seed": 0, "device": "cpu"}
    plain = LanguageAgent(MODEL, env, **words).learn(1)
    asked = LanguageAgent(MODEL, env, **words, recipe_kwargs={"judge": f"{__name__}:even"}).learn(1)
    assert counts(plain) == {"records": 0, "written": 16, "judged": 16}  # 8 answers, and one of the opponent to each
    assert counts(asked) == {"records": 0, "written": 16, "judged": 16 + 8}
    asked.learn(1, reset_num_timesteps=True)
    assert counts(asked)["judged"] == 16 + 8


def test_rows_in_memory_and_judges_without_a_name_are_refused(pairs):
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    with pytest.raises(UsageError, match="cannot keep rows in memory"):
        polyathlon.compare(["dpo", "ipo"], ENV, data=rows, model=MODEL)
    with pytest.raises(UsageError, match="'module:function'"):
        polyathlon.compare(["dpo", "ipo"], data=pairs, reward=share_of_zeros, model=MODEL)


def test_a_setting_with_data_comes_back_from_its_file():
    shared = SharedData("x.jsonl", 0.1, ["a:b"], 9, "12", "pairs", 18, 2)
    setting = Setting("e", "completions", 9, 1, {}, {}, {}, "tiny", 0, shared)
    from dataclasses import asdict

    assert Setting.from_json(json.loads(json.dumps(asdict(setting)))) == setting


def test_the_page_of_runs_that_count_no_records_is_as_it_was():
    setting = Setting("x", "completions", 9, 1, {}, {}, {}, "tiny", 0)
    runs = tuple(
        Outcome("a", i, 1.0, 10, 20, 1.0, 100.0, {}, {"records": 0, "written": 20, "judged": 20}) for i in (0, 1)
    )
    page = comparison_page.markdown(Results(setting, ("a",), 2, runs, None))
    assert "| name | completions | steps |" in page and "judge calls" not in page
    assert [plain_number(x) for x in (-1281.6, 1090.2, 100.4, 12.345, 0.01234)] == [
        "-1,282",
        "1,090",
        "100",
        "12.3",
        "0.0123",
    ]
