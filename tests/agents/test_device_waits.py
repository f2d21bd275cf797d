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


def count(folder: Path) -> dict:
    """Count everything in a process of its own."""
    out = folder / "counts.json"
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["MINARI_DATASETS_PATH"] = str(folder / "datasets")
    command = [sys.executable, "-m", "tests.agents.waits", str(out)]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    found: dict = json.loads(out.read_text())
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


def complaint(name: str, row: dict) -> str | None:
    """Return what is wrong with the counts of a case, or None."""
    if "error" in row:
        return f"{name}: {row['error']}"
    budget = BUDGETS[name]
    if row["waits"] <= budget.waits and row["uploads"] <= budget.uploads:
        return None
    lines = "\n".join(f"    {line}: {number / row['units']:.3f}" for line, number in row["lines"])
    return (
        f"{name}: {row['waits']:.3f} waits and {row['uploads']:.3f} uploads a {row['unit']}, {budget.waits} and {budget.uploads} "
        f"are allowed:\n{lines}"
    )


@pytest.mark.slow
def test_nothing_waits_beyond_its_budget_and_the_numbers_are_the_processors(tmp_path):
    """One test, since workers of xdist would count once each."""
    lacking = pretend.missing()
    if lacking is not None:
        # a warning stands at the end of the run; a skip alone is easily overlooked
        warnings.warn(f"waits on a device were not counted: {lacking}", stacklevel=1)
        pytest.skip(f"the pretend device cannot be built: {lacking}")
    found = count(tmp_path)
    print(table(found))
    assert found["device"]["failures"] == []
    assert found["equal"]["failures"] == []
    assert BUDGETS.keys() <= found.keys(), f"without a case: {sorted(BUDGETS.keys() - found.keys())}"
    wrong = [complaint(name, found[name]) for name in BUDGETS]
    assert not any(wrong), "\n".join(filter(None, wrong))


def test_a_count_beyond_the_budget_names_its_lines():
    row = {"waits": 1.1, "uploads": 0.0, "unit": "step", "units": 10, "lines": [["agents/sac.py:7 wait (number)", 11]]}
    said = complaint("sac", row)
    assert said is not None and "1.100 waits" in said and "agents/sac.py:7 wait (number): 1.100" in said
    assert complaint("sac", row | {"waits": 0.1}) is None
    assert complaint("sac", row | {"waits": 0.1, "uploads": 1.0}) is not None
