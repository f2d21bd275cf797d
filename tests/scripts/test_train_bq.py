"""The script that trains the agents which come with the package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from polyathlon.agents import BQNCO
from polyathlon.agents.construction.pretrained import read

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_bq.py"


@pytest.fixture
def script(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("train_bq", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "train_bq", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "LABELS", tmp_path / "labels")
    monkeypatch.setattr(module, "TEST_COUNT", 4)
    return module


def test_an_agent_and_its_card_are_written(script, monkeypatch, tmp_path):
    small = {"width": 16, "num_layers": 1, "num_heads": 2}
    plan = script.Plan("TSP", {"num_nodes": 6}, 12, "held_karp", {}, {}, 256, small, (5, 7))
    monkeypatch.setitem(script.PLANS, "tsp", plan)
    monkeypatch.setattr(sys, "argv", ["train_bq", "tsp", "--out", str(tmp_path / "data")])
    assert script.main() == 0
    agent = read(BQNCO, "tsp", tmp_path / "data", device="cpu")
    assert agent.solve(np.random.default_rng(0).random((9, 2))).solution.shape == (1, 9)
    card = (tmp_path / "data" / "tsp.md").read_text()
    assert "256 decisions cut out of 12 instances solved by held_karp" in card
    assert "| 5 |" in card and "| 7 |" in card


def test_all_five_have_a_plan_and_an_unknown_one_is_refused(script, monkeypatch, capsys):
    assert {plan.env for plan in script.PLANS.values()} == {env.split("/")[1][:-3] for env in BQNCO.environments}
    monkeypatch.setattr(sys, "argv", ["train_bq", "tps"])
    with pytest.raises(SystemExit):
        script.main()
    assert "unknown problem 'tps'" in capsys.readouterr().err
