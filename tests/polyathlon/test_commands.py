"""train, evaluate, watch and plot on the command line."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest

from polyathlon.cli import main
from polyathlon.cli_commands import parse_options
from polyathlon.envs.errors import UsageError
from polyathlon.plotting import columns_of, curve, plot_runs
from polyathlon.run_folder import RunConfig, RunFolder
from polyathlon.watching import text_frames

TRAIN = ["train", "ppo", "Pendulum-v1", "--plain", "--agent", "n_steps=50", "batch_size=25", "n_epochs=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main([*TRAIN, "--steps", "450", "--out", str(out)]) == 0
    return out


def line(capsys, *arguments):
    """The one line of a command that fails with exit code 2."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1, message
    return message


def test_evaluate_prints_the_mean_of_the_episodes(run, capsys):
    assert main(["evaluate", str(run), "--episodes", "2", "--seed", "7"]) == 0
    first = capsys.readouterr().out
    assert main(["evaluate", str(run), "--episodes", "2", "--seed", "7"]) == 0
    assert capsys.readouterr().out == first
    assert "over 2 episodes, mean length 200" in first


def test_evaluate_can_sample(run, capsys):
    assert main(["evaluate", str(run), "--episodes", "1", "--seed", "7"]) == 0
    likeliest = capsys.readouterr().out
    assert main(["evaluate", str(run), "--episodes", "1", "--seed", "7", "--stochastic"]) == 0
    assert capsys.readouterr().out != likeliest


def test_evaluate_measures_what_the_task_measures(tmp_path, capsys):
    words = ["train", "ppo", "polyathlon/TSP-v0", "--env", "num_nodes=5", "--n-envs", "4", "--steps", "40"]
    assert main([*words, "--agent", "n_steps=5", "batch_size=10", "--out", str(tmp_path / "tsp")]) == 0
    assert main(["evaluate", str(tmp_path / "tsp"), "--episodes", "3"]) == 0
    printed = dict(part.rsplit(" ", 1) for part in capsys.readouterr().out.splitlines() if part.startswith("cost"))
    assert 0 < float(printed["cost"]) < 5


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_film_has_a_picture_a_step(run, tmp_path, suffix):
    out = tmp_path / f"film{suffix}"
    assert main(["watch", str(run), "--out", str(out), "--max-steps", "6", "--fps", "8", "--seed", "1"]) == 0
    frames = imageio.mimread(out, memtest=False)
    assert len(frames) == 7
    assert np.ptp(frames[0]) > 50
    assert any((frames[0] != frame).any() for frame in frames[1:])


def test_a_picture_shows_every_episode(run, tmp_path):
    out = tmp_path / "picture.png"
    assert main(["watch", str(run), "--out", str(out), "--episodes", "2", "--max-steps", "2"]) == 0
    height, width, _ = imageio.imread(out).shape
    assert width == 2 * height


def test_a_transcript_is_text(run, tmp_path):
    out = tmp_path / "transcript.txt"
    assert main(["watch", str(run), "--out", str(out), "--max-steps", "3"]) == 0
    assert out.read_text().startswith("episode 0: return -")


def test_text_is_drawn_line_by_line():
    frames = text_frames(["one", "two \x00 \u2603", "three " * 40])
    assert len(frames) == 3 and frames[0].shape == (400, 640, 3)
    dark = [int((frame < 128).sum()) for frame in frames]
    assert 0 < dark[0] < dark[1] < dark[2]


def test_an_ending_that_means_nothing_is_refused(run, capsys):
    assert "allowed are .mp4, .gif, .png" in line(capsys, "watch", run, "--out", "film.avi")


@pytest.mark.parametrize(
    ("option", "message"),
    [("--episodes", "number of episodes"), ("--max-steps", "number of steps"), ("--fps", "fps")],
)
def test_numbers_that_are_not_positive_are_refused(run, capsys, option, message):
    assert f"the {message} must be positive, got 0" in line(capsys, "watch", run, option, "0")


def test_evaluating_no_episodes_is_refused(run, capsys):
    assert "the number of episodes must be positive, got 0" in line(capsys, "evaluate", run, "--episodes", "0")


def test_plot_draws_several_runs(run, tmp_path, capsys):
    out = tmp_path / "deep" / "curves.png"
    assert main(["plot", str(run), str(run), "--out", str(out), "--metric", "train/value_loss"]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert "Did you mean 'train/value_loss'?" in line(capsys, "plot", run, "--metric", "train/valu_loss")


def test_a_group_of_columns_is_drawn_together(run, tmp_path):
    folder = RunFolder(run)
    names = columns_of(folder, "train")
    assert {"train/value_loss", "train/n_updates"} <= set(names) and all(name.startswith("train/") for name in names)
    assert columns_of(folder, "train/clip") == ["train/clip_fraction", "train/clip_range"]
    assert columns_of(folder, "train/value_loss") == ["train/value_loss"] and columns_of(folder, None) == [None]
    out = plot_runs([run], tmp_path / "group.png", "train/clip")
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_curve_holds_what_was_logged(run):
    metric, steps, values = curve(RunFolder(run))
    assert metric == "rollout/ep_rew_mean"
    rows = [row for row in csv.DictReader((run / "progress.csv").open()) if row[metric]]
    assert steps.tolist() == [float(row["step"]) for row in rows]
    assert values.tolist() == [float(row[metric]) for row in rows]


def test_plotting_nothing_is_refused(tmp_path):
    with pytest.raises(UsageError, match="at least one run"):
        plot_runs([], tmp_path / "x.png")


def test_a_folder_without_a_run_is_named(tmp_path, capsys):
    for words in (["evaluate", tmp_path], ["plot", tmp_path], ["watch", tmp_path]):
        assert f"there is no run in {tmp_path}" in line(capsys, *words)


def test_a_run_without_a_checkpoint_says_so(tmp_path, capsys):
    RunFolder(tmp_path).create(RunConfig("ppo", "Pendulum-v1", 10))
    assert "nothing of the run" in line(capsys, "evaluate", tmp_path)


def test_a_damaged_config_is_named(tmp_path, capsys):
    RunFolder(tmp_path).create(RunConfig("ppo", "Pendulum-v1", 10))
    (tmp_path / "config.json").write_text(json.dumps({"agent": "ppo"}))
    assert "config.json is damaged" in line(capsys, "evaluate", tmp_path)


def test_options_are_read_as_values():
    words = ["a=1", "b=1e-3", "c=text", "d=[1, 2]", "e.f=true", "e.g=null", "h={x: 3}", "i='7'", "j=a=b", "k="]
    assert parse_options(words) == {
        "a": 1,
        "b": 1e-3,
        "c": "text",
        "d": [1, 2],
        "e": {"f": True, "g": None},
        "h": {"x": 3},
        "i": "7",
        "j": "a=b",
        "k": None,
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a"], "KEY=VALUE, got 'a'"),
        (["a=1", "a=2"], "given twice"),
        (["a=1", "a.b=2"], "both as a value and as a dict"),
    ],
)
def test_malformed_options_are_refused(words, message):
    with pytest.raises(UsageError, match=message):
        parse_options(words)


def test_errors_of_training_take_one_line(tmp_path, capsys):
    out = ["--out", tmp_path / "x"]
    assert "Did you mean 'Pendulum-v1'?" in line(capsys, "train", "ppo", "Pendulum-v2", "--steps", 10, *out)
    assert "Did you mean '--seed'?" in line(capsys, *TRAIN, "--steps", 10, "--sed", 3, *out)
    # --seconds is an option of solve: advice names the command's own
    assert "unknown option '--seconds 3'. Did you mean '--seed'? polyathlon watch --help" in line(
        capsys, "watch", "x", "--seconds", 3
    )
    assert "gravity" in line(capsys, *TRAIN, "--steps", 10, "--env", "gravity=9", *out)
    assert "Did you mean 'n_steps'?" in line(capsys, *TRAIN, "n_step=5", "--steps", 10, *out)
    assert "'many' is no whole number" in line(capsys, *TRAIN, "--steps", "many", *out)
    assert not (tmp_path / "x").exists()


def test_reproductions_are_listed_and_suggested(capsys):
    assert main(["reproduce", "--list"]) == 0
    listed = capsys.readouterr().out  # what was found, not what was claimed
    page = (Path(__file__).parents[2] / "docs" / "results" / "expo_pendulum.md").read_text()
    found = re.search(r"^\*\*(.+ seeds\): EXPO is .+)\*\*$", page, re.MULTILINE)[1]
    assert re.search(rf"^expo_pendulum +{re.escape(found)}", listed, re.MULTILINE)
    assert "unknown reproduction 'no_such'" in line(capsys, "reproduce", "no_such")


def test_fetch_knows_models_and_data(capsys, monkeypatch, tmp_path):
    from polyathlon.envs.functions import bfcl

    monkeypatch.setattr(bfcl, "fetch_bfcl", lambda: tmp_path)
    main(["fetch", "bfcl"])
    assert str(tmp_path) in capsys.readouterr().out
    assert "unknown model or data set 'bfc'. Did you mean 'bfcl'?" in line(capsys, "fetch", "bfc")
    assert "nothing to fetch" in line(capsys, "fetch", "tiny")


def test_the_doctor_says_which_layers_hold(capsys, monkeypatch):
    from polyathlon.envs.code import doctor

    rows = [("layer", "holds", "here", "stops"), ("seccomp", "NO", "gone", "network")]
    for is_full, code in ((True, 0), (False, 1)):
        monkeypatch.setattr(doctor, "diagnose", lambda is_full=is_full: (rows, ["a further line"], is_full))
        assert main(["sandbox", "doctor"]) == code
        assert "seccomp  NO" in (said := capsys.readouterr().out) and said.endswith("a further line\n")
    with pytest.raises(SystemExit) as stopped:
        main(["sandbox", "doktor"])
    assert stopped.value.code == 2 and "Did you mean 'doctor'" in capsys.readouterr().err
