"""The search for hyper-parameters: what it draws, that it goes on where it was killed, and the file that it writes."""

from __future__ import annotations

import csv
import json
import sys

import pytest
import yaml

import polyathlon
from polyathlon import tuning
from polyathlon.cli import main
from polyathlon.envs.errors import UsageError
from polyathlon.run_calls import run_config
from polyathlon.run_evaluations import EvaluationFiles
from polyathlon.search_spaces import FOLDER, merged, nested, read_space, within

SPACE = {
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "policy_kwargs.net_arch": [[8], [16, 16]],
    "n_epochs": [1, 2],
}
WORDS = {
    "seeds": 1,
    "evaluations": 2,
    "episodes": 2,
    "agent_kwargs": {"n_steps": 32, "batch_size": 32},
    "n_envs": 1,
    "space": SPACE,
}


def search(out, trials, steps=64, **words):
    return polyathlon.tune("ppo", "polyathlon/CartPole-v1", steps, trials=trials, out=out, **{**WORDS, **words})


# ------------------------------------------------------------------------------------------------------------ spaces


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.yml")))
def test_the_spaces_that_come_with_the_package_name_keywords_of_their_agents(name):
    words = read_space("grpo" if name == "language" else name)
    assert len(words) >= 3 and any(word.name == "learning_rate" and word.log and word.low < 1e-3 for word in words)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"learning_rat": [1]}, "unknown keyword of ppo 'learning_rat'. Did you mean 'learning_rate'"),
        ({"gamma": 0.9}, "gamma must be a list of choices or"),
        ({"gamma": {"low": 0.9}}, "gamma must be a list of choices or"),
        ({"gamma": {"low": 0.9, "high": 0.8}}, "must have low < high"),
        ({"gamma": {"low": 0, "high": 1, "log": True}}, "above 0"),
        ({"gamma": {"low": 0, "high": float("inf")}}, "both finite"),
        ({"gamma": []}, "gamma must be a list of choices or"),
        ([1], "must map keywords of ppo"),
    ],
)
def test_spaces_that_mean_nothing_are_refused(space, message, tmp_path):
    path = tmp_path / "space.yml"
    path.write_text(yaml.safe_dump(space))
    with pytest.raises(UsageError, match=message):
        read_space("ppo", path)


def test_an_agent_without_a_space_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("polyathlon.search_spaces.FOLDER", tmp_path)
    with pytest.raises(UsageError, match="no search space comes with sac: write one"):
        read_space("sac")


def test_words_are_drawn_from_ranges_and_choices():
    class Trial:
        asked: dict = {}

        def suggest_categorical(self, name, choices):
            self.asked[name] = choices
            return choices[-1]

        def suggest_int(self, name, low, high, log):
            return (low, high, log)

        def suggest_float(self, name, low, high, log):
            return (low, high, log)

    words = {
        w.name: w
        for w in read_space("ppo", {**SPACE, "n_steps": {"low": 8, "high": 64}, "gamma": {"low": 0.5, "high": 1}})
    }
    trial = Trial()
    assert words["learning_rate"].draw(trial) == (1e-4, 1e-1, True)
    assert words["n_steps"].draw(trial) == (8, 64, False) and words["gamma"].draw(trial) == (0.5, 1.0, False)
    assert words["policy_kwargs.net_arch"].draw(trial) == [16, 16]
    assert trial.asked["policy_kwargs.net_arch"] == ["[8]", "[16, 16]"]
    assert words["n_epochs"].draw(trial) == 2


def test_nothing_is_drawn_that_lets_a_short_run_learn_nothing():
    words = read_space("sac")
    starts = {word.name: word.choices for word in words}["learning_starts"]
    assert max(starts) > 400
    for length, left in ((400, [c for c in starts if c <= 200]), (2 * max(starts), list(starts)), (1, [])):
        found = {word.name: word for word in within(words, length)}
        assert list(found["learning_starts"].choices if left else ()) == left and ("learning_starts" in found) == bool(
            left
        )
        assert len(found) == len(words) - (not left)


def test_dots_enter_dicts_and_dicts_are_merged_word_by_word():
    assert nested({"a.b": 1, "a.c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}
    assert merged({"a": {"b": 1, "c": 2}, "d": 1}, {"a": {"b": 5}, "e": 2}) == {"a": {"b": 5, "c": 2}, "d": 1, "e": 2}


# ------------------------------------------------------------------------------------------------------------ searching


def table(out):
    return list(csv.DictReader((out / "trials.csv").open(newline="")))


def test_a_killed_search_goes_on_with_what_is_missing(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    out, real, calls = tmp_path / "search", tuning.train, []

    def killed(*args, **words):
        calls.append(words["out"])
        if len(calls) == 2:
            real(*args, **{**words, "total_timesteps": 32, "callback": None})  # half of it, then the plug is pulled
            raise KeyboardInterrupt
        return real(*args, **words)

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            search(out, 3)
    broken = calls[1]
    assert not EvaluationFiles(broken).rows()
    lines = []
    found = search(out, 3, report=lines.append)
    assert EvaluationFiles(broken).rows() and len(lines) == 3
    assert lines[0] == f"3 trials of 64 steps each, 1 of them done before; folder {out}" and "trial 2/3" in lines[1]
    done = [row for row in table(out) if row["state"] in ("complete", "pruned")]
    drawn = {row["learning_rate"] for row in done}
    assert len(done) == found.trials == 3 and len(drawn) == 3  # no draw came twice
    last = [EvaluationFiles(path / "seed0").rows()[-1]["mean"] for path in (out / "trials").iterdir()]
    assert found.score == max(last)
    again = search(out, 3)
    assert (again.best, again.score) == (found.best, found.score)
    assert search(out, 4).trials == 4


def test_the_best_words_are_a_file_that_train_takes(tmp_path, capsys):
    pytest.importorskip("optuna")
    space = tmp_path / "space.yml"
    space.write_text(yaml.safe_dump(SPACE))
    words = [
        "tune",
        "ppo",
        "--on",
        "polyathlon/CartPole-v1",
        "--trials",
        "2",
        "--steps",
        "64",
        "--evaluations",
        "1",
        "--n-envs",
        "1",
    ]
    words += [
        "--episodes",
        "1",
        "--agent",
        "n_steps=32",
        "batch_size=32",
        "--space",
        str(space),
        "--out",
        str(tmp_path / "t"),
    ]
    assert main(words) == 0
    assert f"--tuned {tmp_path / 't' / 'best.yml'}" in capsys.readouterr().out
    best = max((row for row in table(tmp_path / "t")), key=lambda row: float(row["score"]))
    config = run_config("ppo", "polyathlon/CartPole-v1", tuned=tmp_path / "t" / "best.yml")
    assert config.total_timesteps == 64 and config.n_envs == 1
    assert config.tuned["learning_rate"] == float(best["learning_rate"]) and config.tuned["n_steps"] == 32
    assert config.tuned["policy_kwargs"]["net_arch"] == json.loads(best["policy_kwargs.net_arch"])


def test_trials_below_the_median_are_given_up_and_impossible_ones_too(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    number = iter(range(100))

    def score(config, search, path, device, looks):
        k = next(number)
        if k == 6:
            raise UsageError("batch_size 64 is more than a rollout")
        for step in range(1, 5):
            looks(step, -10.0 if k == 5 else float(k))
        return float(k)

    monkeypatch.setattr(tuning, "_score", score)
    found = search(tmp_path / "a", 8)
    states = [(row["state"], row["reason"]) for row in table(tmp_path / "a")]
    assert states[5] == ("pruned", "") and states[6] == ("pruned", "batch_size 64 is more than a rollout")
    assert found.score == 7.0 and [state for state, _ in states].count("complete") == 6
    number = iter(range(100))
    assert search(tmp_path / "b", 6, prune=False).trials == 6
    assert table(tmp_path / "b")[5]["state"] == "complete"


def test_seeds_of_a_trial_are_averaged(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    monkeypatch.setattr(tuning, "_score", lambda config, search, path, device, looks: float(config.seed))
    assert search(tmp_path, 1, seeds=3, seed=10).score == 11.0


def test_a_run_that_would_be_longer_than_asked_is_no_trial(tmp_path):
    pytest.importorskip("optuna")
    with pytest.raises(UsageError, match=r"no trial could be finished; the last one: ppo takes at least 32 steps"):
        search(tmp_path / "t", 1, steps=16)


def test_what_cannot_be_searched_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    monkeypatch.setattr(tuning, "_score", lambda *words: 1.0)
    search(tmp_path / "a", 1)
    with pytest.raises(
        UsageError,
        match=r"holds another search, which differs in evaluations \(2 there, 4 now\), total_timesteps \(64 there, 128 now\): choose",
    ):
        search(tmp_path / "a", 1, steps=128, evaluations=4)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match="something else than a search"):
        search(tmp_path / "b", 1)
    with pytest.raises(UsageError, match="nothing is left to search: agent_kwargs give"):
        search(tmp_path / "c", 1, agent_kwargs={"n_epochs": 1}, space={"n_epochs": [1, 2]})
    with pytest.raises(UsageError, match="trials must be a positive integer"):
        search(tmp_path / "c", 0)


def test_without_optuna_the_command_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["tune", "sac", "--on", "Pendulum-v1", "--out", str(tmp_path / "t")]) == 2
    assert "pip install 'polyathlon[tune]'" in capsys.readouterr().err


def test_a_damaged_search_is_told_in_one_line(tmp_path):
    pytest.importorskip("optuna")
    out = tmp_path / "search"
    search(out, 1)
    (out / "study.db").write_text("no database")
    with pytest.raises(UsageError, match=r"cannot be kept in sqlite:.*remove .*study.db"):
        search(out, 1)
    for text in ("{", "[]", '{"run": 3}'):
        (out / "tune.json").write_text(text)
        with pytest.raises(UsageError, match=r"tune.json is damaged .*choose another --out"):
            search(out, 1)


@pytest.mark.parametrize("storage", ["nonsense", "sqlite:////no/such/folder/x.db", "nosuchbase://host/x"])
def test_a_storage_that_is_none_is_told_in_one_line(tmp_path, storage):
    pytest.importorskip("optuna")
    with pytest.raises(UsageError, match=r"the trials cannot be kept in .*URL of SQLAlchemy, such as"):
        search(tmp_path / "search", 1, storage=storage)
