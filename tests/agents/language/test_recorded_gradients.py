"""The seven first recipes as rows give the gradients that they gave before they were rows (scripts/record_recipes.py)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "record_recipes.py"
SPEC = importlib.util.spec_from_file_location("record_recipes", SCRIPT)
assert SPEC is not None and SPEC.loader is not None
record_recipes = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(record_recipes)


def relative_gap(found, wanted):
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("case", sorted(record_recipes.CASES))
def test_gradients_are_those_that_were_recorded(case):
    wanted = np.load(record_recipes.GRADIENTS)[case]
    assert np.abs(wanted).max() > 1e-3
    assert relative_gap(record_recipes.gradient(case), wanted) < 1e-6
