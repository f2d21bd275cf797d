"""scripts/make_datasets: makes what is asked for, keeps it, and words errors in one line."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import minari
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_datasets.py"


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.setenv("POLYATHLON_CACHE", str(tmp_path / "cache"))
    spec = importlib.util.spec_from_file_location("make_datasets", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_call_makes_and_keeps(script, capsys):
    words = ["Pendulum-v1", "--kinds", "random", "replay", "--transitions", "200", "--train-steps", "200"]
    words += ["--agent-option", "learning_starts=300"]
    assert script.main(words) == 0
    first = capsys.readouterr()
    assert first.out.split() == ["polyathlon/pendulum/random-v0", "polyathlon/pendulum/replay-v0"]
    assert "training sac" in first.err and minari.load_dataset("polyathlon/pendulum/random-v0").total_steps == 200
    assert script.main(words) == 0
    again = capsys.readouterr()
    assert again.out == first.out and again.err == ""


def test_an_error_takes_one_line(script, capsys):
    assert script.main(["Pendulum-v1", "--kinds", "expertt"]) == 2
    assert capsys.readouterr().err.startswith(
        "make_datasets: error: unknown kind of dataset 'expertt'. Did you mean 'expert'"
    )
