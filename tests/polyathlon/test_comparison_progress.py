"""How far the runs of a comparison are, by their files."""

from __future__ import annotations

import io
import json
import sys

from polyathlon import comparison_progress
from polyathlon.comparison_progress import share_done, watched_runs


def written(folder, unit, length, rows):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"total_timesteps": length, "unit": unit}))
    (folder / "progress.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_a_run_is_as_far_as_its_log_says(tmp_path):
    assert share_done(tmp_path / "nothing") == 0
    steps = written(tmp_path / "a", "steps", 200, ["step,time/episodes", "50,1", "150,3"])
    assert share_done(steps) == 0.75
    answers = written(tmp_path / "b", "completions", 12, ["step,time/episodes", "50,1", "150,3"])
    assert share_done(answers) == 0.25
    late = written(tmp_path / "c", "steps", 100, ["step", "128"])
    assert share_done(late) == 0.99  # the score is still to come
    (late / "result.json").write_text("{}")
    assert share_done(late) == 1
    (steps / "progress.csv").write_text("")
    assert share_done(steps) == 0
    (steps / "config.json").write_text("{")
    assert share_done(steps) == 0


def test_the_bar_counts_runs_and_parts_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(comparison_progress, "SECONDS", 0.01)
    folders = [written(tmp_path / name, "steps", 4, ["step", "2"]) for name in "ab"]
    with watched_runs(folders, shown=True):
        (folders[0] / "result.json").write_text("{}")
    assert "1.5/2" in sys.stderr.getvalue() and "comparing" in sys.stderr.getvalue()
    before = len(sys.stderr.getvalue())
    with watched_runs(folders):
        pass
    assert len(sys.stderr.getvalue()) == before  # no terminal
