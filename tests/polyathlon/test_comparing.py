"""Comparisons: equal starts and problems, runs that go on, intervals by the one module, refusals before anything trains."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import polyathlon
from polyathlon import comparison_page
from polyathlon.checkpoints import read_state
from polyathlon.cli import main
from polyathlon.comparison_results import SCORE, Outcome, Results, common_places, half_way, read_results
from polyathlon.comparison_runs import Setting, seconds_logged
from polyathlon.envs.errors import UsageError
from polyathlon.run_folder import RunFolder
from polyathlon.statistics import paired_difference, t_interval

from .comparison_names import ENV, HERE, MODEL

ROOT = Path(__file__).parents[2]

SMALL = {
    "model": MODEL,
    "warm_start": 4,
    "completions": 48,
    "episodes": 20,
    "seeds": 2,
    "agent_kwargs": {"num_prompts": 2, "group_size": 4, "learning_rate": 0.2},
    "wrapper_kwargs": {"max_new_tokens": 1},
}


def compared(names, out, **words):
    return polyathlon.compare(names, ENV, out=out, **{**SMALL, **words})


@pytest.fixture
def no_picture(monkeypatch):
    """Draw nothing: it takes longer than the runs."""
    monkeypatch.setattr(comparison_page, "draw", lambda results, path: None)


@pytest.fixture
def copied(whole, tmp_path, no_picture):
    """A copy of the unbroken comparison, to go on with."""
    shutil.copytree(whole[0], tmp_path / "copied")
    return tmp_path / "copied"


def told(folder: Path) -> tuple[str, list[list[str]]]:
    """What a page and its table say, without what the clock and the machine say."""
    rows = list(csv.reader((folder / "comparison.csv").open(newline="")))
    return (folder / "comparison.md").read_text().partition("## What it cost")[0], [row[:-2] for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An unbroken comparison."""
    out = tmp_path_factory.mktemp("whole") / "compared"
    return out, compared(["grpo", "rloo", f"{HERE}:STILL"], out)


def test_scores_differences_and_verdicts_are_those_of_the_statistics(whole):
    out, found = whole
    rows = found.results.rows()
    scores = {
        name: [json.loads((out / "runs" / f"{folder}-seed{s}" / "result.json").read_text())["score"] for s in range(2)]
        for name, folder in (("grpo", "grpo"), ("rloo", "rloo"), (f"{HERE}:STILL", f"{HERE}-STILL"))
    }
    assert [row.name for row in rows] == list(scores)
    for row in rows:
        assert row.score == t_interval(scores[row.name])
        if row.name != "grpo":
            assert row.difference == paired_difference(scores[row.name], scores["grpo"])
    assert rows[0].difference is None and rows[0].verdict is None
    page = (out / "comparison.md").read_text()
    assert str(rows[1].difference) in page and str(rows[1].score) in page and "a claim needs 8" in page
    for name in ("comparison.png", "comparison.csv", "comparison.json"):
        assert (out / name).stat().st_size > 100


def test_every_run_is_a_run_folder_with_equal_completions(whole):
    out, found = whole
    for outcome in found.results.outcomes:
        assert outcome.completions == 48
        assert {"entropy of a token", "divergence from the start, per token", SCORE} <= set(outcome.curves)
    config = RunFolder(out / "runs" / "grpo-seed1").config()
    assert (config.unit, config.total_timesteps, config.seed, config.warm_start) == ("completions", 48, 1000, 4)
    assert main(["evaluate", str(out / "runs" / "grpo-seed1"), "--episodes", "2"]) == 0


def test_recipes_of_a_seed_start_from_the_same_weights_and_see_the_same_problems(whole):
    out, found = whole
    kl = "divergence from the start, per token"
    for number in range(2):
        grpo, rloo, still = (
            next(o for o in found.results.of(name) if o.number == number) for name in found.results.names
        )
        for outcome in (grpo, rloo, still):
            assert outcome.curves[kl][1][0] == pytest.approx(0, abs=1e-6)  # before the first update
        assert grpo.curves[SCORE][1][0] == rloo.curves[SCORE][1][0] == still.curves[SCORE][1][0]
        assert still.curves[kl][1][-1] == pytest.approx(0, abs=1e-6)
    assert max(o.curves[kl][1][-1] for o in found.results.of("grpo")) > 1e-3
    first, second = (found.results.of("grpo")[i].curves["entropy of a token"][1][0] for i in range(2))
    assert first != second


def test_two_names_of_one_recipe_differ_by_exactly_nothing(copied):
    row = compared(["grpo", "language:grpo"], copied).results.rows()[1]
    assert (row.difference.low, row.difference.estimate, row.difference.high, row.verdict) == (0, 0, 0, "not shown")


def test_what_learns_is_told_from_what_does_not(tmp_path, no_picture):
    words = {"seeds": 3, "completions": 160, "episodes": 100, "warm_start": 0}
    rows = compared([f"{HERE}:STILL", "grpo"], tmp_path / "run", **words).results.rows()
    assert rows[1].verdict == "better" and rows[1].difference.low > 0.1
    assert rows[1].number_reached == 3 and rows[1].reached is not None and rows[0].reached is None


def test_imitation_takes_the_words_of_train(tmp_path, no_picture):
    starts = []
    for words in ({"n": 4}, {"epochs": 3, "n": 4}):
        out = tmp_path / f"epochs{words.get('epochs')}"
        found = compared(["grpo", "rloo"], out, completions=8, episodes=2, warm_start=words)
        starts.append(read_state(out / "start" / "seed0.zip", "warm start")["weights"])
    assert "after the imitation of 4 answers (epochs 3); " in found.page.read_text()
    assert any((value != starts[0][name]).any() for name, value in starts[1].items())
    assert RunFolder(out / "runs" / "grpo-seed0").config().warm_start == words
    with pytest.raises(UsageError, match="warm_start was {'n': 4, 'epochs': 3}, now 4"):
        compared(["grpo", "rloo"], out, completions=8, episodes=2)


KILLED = """
import polyathlon.run_callbacks as callbacks
callbacks.SECONDS_BETWEEN_CHECKPOINTS = 0.0
from tests.polyathlon.test_comparing import compared, HERE
import sys
compared(["grpo", "rloo", f"{HERE}:STILL"], sys.argv[1])
"""


def test_a_killed_comparison_goes_on_and_gives_the_same_page(whole, tmp_path, monkeypatch):
    out = tmp_path / "killed"
    known = {**os.environ, "PYTHONPATH": str(ROOT)}  # where `tests` is found, whatever started this process
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(out)], env=known)
    log, end = out / "runs" / "rloo-seed0" / "progress.csv", time.monotonic() + 120
    while time.monotonic() < end and not (log.exists() and log.read_text().count("\n") >= 3):
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    results = list(out.glob("runs/*/result.json"))
    assert 1 <= len(results) < 6 and not (out / "comparison.md").exists()
    before = {path: path.stat().st_mtime_ns for path in results}
    monkeypatch.setattr(comparison_page, "draw", lambda results, path: None)
    compared(["grpo", "rloo", f"{HERE}:STILL"], out)
    assert told(out) == told(whole[0])
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())  # what was done was not done again


def test_more_names_go_on_from_what_there_is(copied):
    when = (copied / "runs" / "grpo-seed0" / "result.json").stat().st_mtime_ns
    found = compared(["rloo", "grpo", "dr_grpo"], copied)
    assert [row.name for row in found.results.rows()] == ["rloo", "grpo", "dr_grpo"]
    assert (copied / "runs" / "grpo-seed0" / "result.json").stat().st_mtime_ns == when


def test_runs_in_processes_of_their_own_are_the_same_runs(whole, copied, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    for name in ("grpo-seed0", "rloo-seed1"):
        shutil.rmtree(copied / "runs" / name)
    compared(["grpo", "rloo", f"{HERE}:STILL"], copied, jobs=2)
    assert told(copied) == told(whole[0])


def test_agents_and_recipes_stand_side_by_side_by_steps(tmp_path, capsys, no_picture):
    words = [
        "compare",
        "sac",
        "grpo",
        "--on",
        ENV,
        "--steps",
        "64",
        "--seeds",
        "2",
        "--warm-start",
        "0",
        "--episodes",
        "5",
    ]
    words += ["--model", MODEL, "--wrapper", "max_new_tokens=1", "--out", str(tmp_path / "run")]
    if main(words) != 0:
        pytest.fail(capsys.readouterr().err)
    assert "# sac, grpo on" in (tmp_path / "run" / "comparison.md").read_text()
    with pytest.raises(UsageError, match="steps .--steps."):
        polyathlon.compare(["sac", "grpo"], ENV, seeds=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["grp", "rloo"], "Did you mean 'grpo'"),
        (["grpo"], "at least two names"),
        (["grpo", "grpo"], "given twice"),
        (["grpo", "rloo", "--seeds", "1"], "at least 2"),
        (["grpo", "rloo", "--jobs", "0"], "jobs must be a positive integer"),
        (["grpo", "rloo", "--threshold", "nan"], "threshold is a score"),
        (["language:grpo", "grpo", "--warm-start", "-1"], "warm_start must be"),
        (["grpo", "rloo", "--warm-start", "9,epoch=2"], "Did you mean 'epochs'"),
        (["grpo", "rloo", "--completions", "0"], "completions must be"),
        (["grpo", "rloo", "--completions", "9", "--steps", "9"], "steps are given too"),
        (["ppo", "sac", "--quick"], "ppo has no completions"),
        (["ppo", "sac", "--model", "tiny"], "use no language model"),
        (["grpo", f"{HERE}:TAUGHT"], "TAUGHT.*needs a model for 'teacher'"),
        (["grpo", "rloo", "--env", "solved=false"], "--warm-start 0"),
        (
            ["grpo", "sft", "--env", "solved=false", "--warm-start", "0", "--agent", "num_prompts=2"],
            "sft learns from them",
        ),
        (["grpo", "rloo", "--agent", "group_size=1"], "grpo: .*group_size is 1"),
        (["grpo", "rloo", "--env", "colour=3"], "colour"),
        (["grpo", "rloo", "--model", "table:5"], "table:64,1,16"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_line_before_anything_trains(words, message, tmp_path, capsys):
    standard = ["--model", MODEL] if not {"ppo", "--model"} & set(words) else []
    code = main(["compare", *words, "--on", ENV, *standard, "--out", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and re.search(message, error), error
    assert not (tmp_path / "run" / "runs").exists() and not (tmp_path / "run" / "start").exists()


def test_the_environment_s_place_is_told(capsys):
    assert main(["compare", "grpo", "rloo", "--env", "polyathlon/Reasoning-v0"]) == 2
    assert "the environment is --on polyathlon/Reasoning-v0" in capsys.readouterr().err
    assert main(["compare", "grpo", "rloo"]) == 2
    assert "--on ENV" in capsys.readouterr().err


def test_a_folder_of_another_setting_is_refused(whole, tmp_path):
    with pytest.raises(UsageError, match="length was 48, now 64"):
        compared(["grpo", "rloo"], whole[0], completions=64)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else than a comparison"):
        compared(["grpo", "rloo"], tmp_path)


# ------------------------------------------------------------------------------------------------------ results

SETTING = Setting("x", "completions", 9, 1, {}, {}, {}, "tiny", 0)


def outcome(name, number, score, curve):
    return Outcome(name, number, score, 10, 20, 1.0, 100.0, {SCORE: tuple(np.array(x, float) for x in curve)})


def test_thresholds_are_reached_where_a_curve_first_stands_there():
    outcomes = (
        outcome("a", 0, 1.0, ([1, 2, 3], [0, 0.4, 1.0])),
        outcome("a", 1, 0.5, ([1, 2, 3], [0.2, 0.2, 0.6])),
        outcome("b", 0, 0.0, ([1, 2, 3], [0, 0, 0.1])),
        outcome("b", 1, 0.0, ([1, 2, 3], [0.2, 0.3, 0.3])),
    )
    threshold = half_way(outcomes)
    assert threshold == pytest.approx(0.1 + (0.8 - 0.1) / 2)  # mean of the first, and a's mean of the last
    a, b = Results(SETTING, ("a", "b"), 2, outcomes, threshold).rows()
    assert a.reached == t_interval([3, 3]) and a.number_reached == 2
    assert b.reached is None and b.number_reached == 0
    assert b.difference == paired_difference([0.0, 0.0], [1.0, 0.5])


def test_curves_of_different_places_are_read_between_them():
    same = common_places([np.array([1.0, 2.0]), np.array([1.0, 2.0])])
    assert same.tolist() == [1.0, 2.0]
    between = common_places([np.array([1.0, 5.0]), np.array([2.0, 4.0, 9.0])])
    assert between[0] == 2 and between[-1] == 5
    assert len(common_places([np.array([1.0, 2.0]), np.array([3.0])])) == 0
    outcomes = (outcome("a", 0, 1.0, ([0, 4], [0, 4])), outcome("a", 1, 1.0, ([0, 2, 4], [2, 4, 6])))
    x, mean, low, high = Results(SETTING, ("a",), 2, outcomes, None).bands(SCORE)["a"]
    np.testing.assert_allclose(mean, x + 1)
    assert (low < mean).all() and (mean < high).all()


def test_a_result_that_is_damaged_is_named(whole, tmp_path):
    with pytest.raises(UsageError, match="result.json cannot be read"):
        read_results(tmp_path, whole[1].results.setting, ["grpo"], 2, None)


def test_seconds_add_up_over_the_times_that_a_run_was_begun(tmp_path):
    folder = RunFolder(tmp_path)
    assert seconds_logged(folder) == 0
    folder.progress_path.write_text("step,time/time_elapsed\n1,3\n2,5\n3,2\n4,4\n")
    assert seconds_logged(folder) == 5 + 4
