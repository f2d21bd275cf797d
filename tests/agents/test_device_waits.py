"""Nothing waits on the device: counted on a pretend accelerator, every agent and recipe stays within its budget.

The device (tests/agents/waits/device.cpp) is built by torch.utils.cpp_extension and kept in its cache; a backend can be named once
a process, so the counting is done in one of its own. `pytest tests/agents/test_device_waits.py -s` prints the table.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import polyathlon
from polyathlon.agents.language.recipes import recipe_rows
from tests.agents.waits import pretend
from tests.agents.waits.budgets import BUDGETS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    lacking = pretend.missing()
    if lacking is not None:
        # a warning stands at the end of the run; a skip alone is easily overlooked
        warnings.warn(f"waits on a device were not counted: {lacking}", stacklevel=1)
        pytest.skip(f"the pretend device cannot be built: {lacking}")
    out = tmp_path_factory.mktemp("waits") / "counts.json"
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["MINARI_DATASETS_PATH"] = str(tmp_path_factory.mktemp("datasets"))
    run = subprocess.run(
        [sys.executable, "-m", "tests.agents.waits", str(out)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    found = json.loads(out.read_text())
    print(table(found))
    return found


def table(found: dict) -> str:
    """Return the counts beside their budgets, as docs/device_waits.md has them."""
    lines = ["", "| path | per | waits | budget | uploads | budget | launches |", "|---|---|---|---|---|---|---|"]
    for name, budget in BUDGETS.items():
        row = found.get(name, {})
        if "waits" in row:
            numbers = f"{row['waits']:.3g} | {budget.waits:g} | {row['uploads']:.3g} | {budget.uploads:g} | {row['launches']:.0f}"
            lines.append(f"| {name} | {row['unit']} | {numbers} |")
    return "\n".join([*lines, f"{found['seconds']['all']:.0f} s of processor time"])


def test_every_agent_and_recipe_has_a_budget():
    names = {record.name for record in polyathlon.algorithms()}
    names |= {f"recipe {row.name}" for row in recipe_rows() if row.source != "test"}
    assert names <= BUDGETS.keys(), f"without a budget of waits: {sorted(names - BUDGETS.keys())}"


def test_the_device_is_one_and_its_counter_counts(counted):
    assert counted["device"]["failures"] == []


def test_agents_learn_the_same_there_as_on_the_processor(counted):
    assert counted["equal"]["failures"] == []


@pytest.mark.parametrize("name", list(BUDGETS))
def test_waits_stay_within_the_budget(counted, name):
    assert name in counted, f"{name} has a budget and no case: add one to tests/agents/waits/cases.py"
    row, budget = counted[name], BUDGETS[name]
    assert "error" not in row, row["error"]
    lines = "\n".join(f"  {line}: {count / row['units']:.3f}" for line, count in row["lines"])
    assert row["waits"] <= budget.waits, f"{row['waits']:.3f} waits a {row['unit']}, {budget.waits} allowed:\n{lines}"
    assert row["uploads"] <= budget.uploads, (
        f"{row['uploads']:.3f} uploads a {row['unit']}, {budget.uploads} allowed:\n{lines}"
    )
