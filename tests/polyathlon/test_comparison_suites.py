"""Comparisons over several tasks and of runs that exist, and pictures of several runs of one setting."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from scipy.stats import trim_mean

import polyathlon
from polyathlon import comparing, plotting
from polyathlon.cli import main
from polyathlon.comparison_results import Outcome, Results
from polyathlon.comparison_runs import Setting
from polyathlon.comparison_suites import SuiteResults, suite_markdown, suite_table
from polyathlon.envs.errors import UsageError
from polyathlon.evaluation import agent_policy, evaluate, load_run
from polyathlon.plotting import plot_runs, smoothed
from polyathlon.run_folder import RunConfig
from polyathlon.run_groups import group_runs, labels_of
from polyathlon.statistics import optimality_gap, profile_band, t_interval

RAW = {  # [task][name] scores by seed
    "A-v0": {"x": [0.0, 2.0, 1.0, 3.0], "y": [2.0, 4.0, 3.0, 3.5]},
    "B-v0": {"x": [-100.0, -60.0, -90.0, -80.0], "y": [-70.0, -50.0, -60.0, -55.0]},
    "C-v0": {"x": [7.0, 7.0, 7.0, 7.0], "y": [7.0, 7.0, 7.0, 7.0]},
}


def outcome(name, number, score):
    return Outcome(name, number, score, 10, 1, 1.0, 1.0, {})


@pytest.fixture(scope="module")
def suite():
    each = []
    for env, scores in RAW.items():
        setting = Setting(env, "steps", 10, 5, {}, {}, {}, None, 0)
        runs = tuple(outcome(name, i, s) for name, own in scores.items() for i, s in enumerate(own))
        each.append(Results(setting, ("x", "y"), 4, runs, None))
    return SuiteResults(tuple(each))


def by_hand(name):
    """Normalised scores [S, T], worked out run by run."""
    columns = []
    for scores in RAW.values():
        every = [s for own in scores.values() for s in own]
        low, high = min(every), max(every)
        columns.append([1.0 if high == low else (s - low) / (high - low) for s in scores[name]])
    return np.array(columns).T


def test_scores_are_normalised_task_by_task(suite):
    assert suite.scores("x").shape == (4, 3) and suite.scores("x")[1].tolist() == [2.0, -60.0, 7.0]
    for name in ("x", "y"):
        assert suite.normalised(name) == pytest.approx(by_hand(name))
    assert suite.normalised("x")[:, 0].tolist() == [0.0, 0.5, 0.25, 0.75]


def test_the_rows_are_rliable_s_formulas(suite):
    # rliable: aggregate_iqm = trim_mean(scores, 0.25, axis=None); optimality gap = 1 - mean(min(scores, 1)); the probability of
    # improvement is Mann and Whitney's U over the number of pairs, averaged over tasks; intervals are percentiles of resamples that draw
    # seeds with replacement within each task
    first, second = suite.rows()
    x, y = by_hand("x"), by_hand("y")
    assert first.middle.estimate == pytest.approx(trim_mean(x, 0.25, axis=None))
    assert second.middle.estimate == pytest.approx(trim_mean(y, 0.25, axis=None))
    assert second.gap.estimate == pytest.approx(1 - np.minimum(y, 1.0).mean())
    pairs = [np.mean([1.0 if b > a else 0.5 if b == a else 0.0 for a in x[:, t] for b in y[:, t]]) for t in range(3)]
    assert second.improvement == pytest.approx(np.mean(pairs)) and first.improvement is None
    rng, found = np.random.default_rng(1), []
    for _ in range(4000):
        drawn = np.stack([y[rng.integers(4, size=4), t] for t in range(3)], 1)
        found.append(trim_mean(drawn, 0.25, axis=None))
    ends = np.percentile(found, [2.5, 97.5])
    assert (second.middle.low, second.middle.high) == pytest.approx(ends, abs=0.02)
    difference = t_interval((y - x).mean(1))
    assert (second.difference, second.verdict) == (difference, "better")


def test_the_profile_is_the_share_of_runs_above_a_score_with_its_band(suite):
    y, thresholds = by_hand("y"), [0.0, 0.5, 0.99]
    share, low, high = profile_band(y, thresholds, resamples=4000)
    assert share.tolist() == [np.mean([value > tau for value in y.ravel()]) for tau in thresholds]
    rng, found = np.random.default_rng(2), []
    for _ in range(4000):
        drawn = np.stack([y[rng.integers(4, size=4), t] for t in range(3)], 1)
        found.append([(drawn > tau).mean() for tau in thresholds])
    assert low == pytest.approx(np.percentile(found, 2.5, axis=0), abs=0.09)  # shares jump by a twelfth
    assert high == pytest.approx(np.percentile(found, 97.5, axis=0), abs=0.09)
    assert float(optimality_gap(np.array([[0.25, 2.0]]))) == pytest.approx(0.375)


def test_the_page_has_every_task_and_every_run(suite):
    page, lines = suite_markdown(suite), list(csv.DictReader(suite_table(suite).splitlines()))
    assert "# x, y on 3 tasks" in page and "[B-v0](B-v0/comparison.md)" in page and "a claim needs 8" in page
    assert len(lines) == 24 and {line["seed"] for line in lines} == {"0", "1000", "2000", "3000"}
    mine = next(line for line in lines if (line["name"], line["task"], line["seed"]) == ("y", "B-v0", "1000"))
    assert (float(mine["score"]), float(mine["normalised"])) == (-50.0, 1.0)


def test_one_command_compares_on_several_tasks(tmp_path, monkeypatch, capsys):
    def quick(folder, setting, names, seeds, processes, device, report):
        for name in names:
            for number in range(seeds):
                path = comparing.run_folder_of(folder, name, number)
                path.mkdir(parents=True, exist_ok=True)
                score = number + (5.0 if name == "td3" else 0.0)
                costs = {"steps": 10, "completions": 1, "seconds": 1.0, "memory_mb": 1.0}
                (path / "result.json").write_text(json.dumps({"score": score, **costs}))

    monkeypatch.setattr(comparing, "_run_all", quick)
    words = [
        "compare",
        "sac",
        "td3",
        "--on",
        "Pendulum-v1",
        "MountainCarContinuous-v0",
        "--steps",
        "10",
        "--seeds",
        "3",
    ]
    assert main([*words, "--out", str(tmp_path / "c")]) == 0
    assert "td3  interquartile mean" in capsys.readouterr().out
    for place in ("", "Pendulum-v1", "MountainCarContinuous-v0"):
        assert {"comparison.md", "comparison.csv", "comparison.png"} <= {
            p.name for p in (tmp_path / "c" / place).iterdir()
        }
    assert main(["compare", "sac", "td3", "--on", "Pendulum-v1", "Pendulum-v1", "--out", str(tmp_path / "d")]) == 2
    assert "Pendulum-v1 is given twice" in capsys.readouterr().err
    assert (
        main(["compare", "sac", "td3", "--on", "Pendulum-v1", "polyathlon/Nothing-v0", "--out", str(tmp_path / "d")])
        == 2
    )
    assert "unknown environment" in capsys.readouterr().err and not (tmp_path / "d").exists()


# ------------------------------------------------------------------------------------------------------------ runs that exist


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two settings over the seeds 3 and 4, and one more seed of the first."""
    folder = tmp_path_factory.mktemp("runs")
    for rate, seeds in ((0.01, (3, 4, 5)), (0.0001, (3, 4))):
        for seed in seeds:
            kwargs = {"n_steps": 32, "batch_size": 32, "n_epochs": 1, "learning_rate": rate}
            words = {"agent_kwargs": kwargs, "tuned": False, "picture": False, "seed": seed}
            polyathlon.train("ppo", "CartPole-v1", 128, out=folder / f"{rate}-{seed}", **words)
    return folder


def test_runs_that_differ_in_the_seed_are_one_setting_and_labels_say_what_differs(runs):
    groups = group_runs([*sorted(runs.iterdir()), runs / "0.01-3"])
    assert [(g.label, [c.seed for c in g.configs]) for g in groups] == [
        ("learning_rate 0.0001", [3, 4]),
        ("learning_rate 0.01", [3, 4, 5]),
    ]
    assert [g.label for g in group_runs([runs / "0.01-3", runs / "0.01-4"])] == ["ppo on CartPole-v1"]


def test_labels_name_agents_environments_and_options_that_only_one_has():
    a = RunConfig("sac", "A-v0", 10, agent_kwargs={"gamma": 0.9})
    b = RunConfig("td3", "A-v0", 10, env_kwargs={"size": 3})
    assert labels_of([a, b]) == ["sac, usual size, gamma 0.9", "td3, size 3, usual gamma"]
    assert labels_of([a, RunConfig("sac", "A-v0", 99, tuned={"gamma": 0.9})]) == ["sac on A-v0", "sac on A-v0"]
    long = [RunConfig("sac", "A-v0", 10, agent_kwargs={"words": "x" * 80 + end}) for end in "ab"]
    first, second = labels_of(long)
    assert first != second and len(first) <= 60 >= len(second)


def test_runs_that_exist_are_compared_over_the_seeds_that_all_have(runs, tmp_path, capsys):
    paths = [str(path) for path in sorted(runs.iterdir())]
    assert main(["compare", *paths, "--episodes", "3", "--out", str(tmp_path / "c")]) == 0
    assert "learning_rate 0.01  " in capsys.readouterr().out
    lines = list(csv.DictReader((tmp_path / "c" / "comparison.csv").open(newline="")))
    assert [line["seed"] for line in lines] == ["3", "4", "3", "4"]
    page = (tmp_path / "c" / "comparison.md").read_text()
    assert "2 seeds (3, 4)" in page and "nan" not in page
    agent, env = load_run(runs / "0.01-4")
    # the fresh episodes of the second seed, the same for every setting
    expected = evaluate(env, agent_policy(agent), 3, seed=1_000_000_000 + 1_000).mean
    assert float(lines[3]["score"]) == expected


def test_what_cannot_be_compared_is_refused(runs, tmp_path, capsys):
    def said(*words):
        assert main(["compare", *map(str, words), "--out", str(tmp_path / "c")]) == 2
        return capsys.readouterr().err

    assert "at least two settings, got ppo on CartPole-v1 alone" in said(runs / "0.01-3", runs / "0.01-4")
    assert "at least two; learning_rate 0.01 has 3, 5" in said(runs / "0.01-3", runs / "0.01-5", runs / "0.0001-3")
    assert "there is no run in" in said(runs / "0.01-3", tmp_path / "nothing")
    assert "runs that exist are as they are" in said(runs / "0.01-3", runs / "0.0001-3", "--steps", "5")
    assert "best and trust are for runs that exist" in said("sac", "td3", "--on", "Pendulum-v1", "--best")
    assert "keeps no best agent" in said(*runs.iterdir(), "--best")
    other = tmp_path / "other"
    kwargs = {"n_steps": 32, "batch_size": 32, "n_epochs": 1}
    polyathlon.train("ppo", "Acrobot-v1", 32, agent_kwargs=kwargs, tuned=False, out=other, picture=False)
    assert "different tasks cannot be compared: " in (text := said(runs / "0.01-3", other))
    assert "0.01-3 is on CartPole-v1; " in text and "other is on Acrobot-v1" in text


# ------------------------------------------------------------------------------------------------------------ pictures


def test_smoothing_is_the_unbiased_moving_average():
    x = np.array([1.0, 3.0, 5.0])
    assert smoothed(x, 0.0).tolist() == [1.0, 3.0, 5.0]
    # w = 0.5: (0.5 * 1 + 3) / 1.5, (0.25 * 1 + 0.5 * 3 + 5) / 1.75
    assert smoothed(x, 0.5) == pytest.approx([1.0, 3.5 / 1.5, 6.75 / 1.75])
    assert smoothed(np.full(9, 2.0), 0.99) == pytest.approx(np.full(9, 2.0))
    # a record without a number leaves a gap, and no more
    np.testing.assert_array_equal(smoothed(np.array([1.0, np.nan, 5.0]), 0.0), [1.0, np.nan, 5.0])
    np.testing.assert_allclose(smoothed(np.array([1.0, np.nan, 3.0]), 0.5), [1.0, np.nan, 3.5 / 1.5])


def test_a_picture_has_a_line_and_a_band_for_each_setting_and_the_runs_behind(runs, tmp_path, monkeypatch):
    drawn = []
    real = plotting._draw_setting
    monkeypatch.setattr(
        plotting, "_draw_setting", lambda axis, *rest: (real(axis, *rest), drawn.append((axis, rest[0])))
    )
    plot_runs(sorted(runs.iterdir()), tmp_path / "a.png", smooth=0.5)
    axis = drawn[0][0]
    assert [each.label for _, each in drawn] == ["learning_rate 0.0001", "learning_rate 0.01"]
    assert len(axis.lines) == (2 + 1) + (3 + 1) and len(axis.collections) == 2
    assert axis.get_legend_handles_labels()[1] == ["learning_rate 0.0001 (mean of 2)", "learning_rate 0.01 (mean of 3)"]
    mean = axis.lines[2].get_ydata()
    each = [smoothed(values, 0.5) for _, values in drawn[0][1].runs]
    assert mean == pytest.approx(np.mean(each, 0))
    drawn.clear()
    plot_runs([runs / "0.01-3"], tmp_path / "b.png")
    assert len(drawn[0][0].lines) == 1 and not drawn[0][0].collections


@pytest.mark.parametrize("smooth", [-0.1, 1.0, float("nan")])
def test_an_impossible_smoothing_is_refused(runs, tmp_path, smooth):
    with pytest.raises(UsageError, match="smooth is the weight of the past"):
        plot_runs([runs / "0.01-3"], tmp_path / "a.png", smooth=smooth)
