"""The command of README that trains a language model: it learns, and says nothing that is no news."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import pytest

from polyathlon.cli import main

README = Path(__file__).parents[2] / "README.md"


def command_of_readme(agent):
    text = README.read_text().replace("\\\n", " ")
    found = re.search(rf"^polyathlon (train {agent} .*)$", text, re.MULTILINE)
    assert found is not None
    return shlex.split(found.group(1))


def first_and_last_third(path, column):
    numbers = [float(row[column]) for row in csv.DictReader(path.open()) if row[column]]
    third = len(numbers) // 3
    return sum(numbers[:third]) / third, sum(numbers[-third:]) / third


@pytest.mark.slow
def test_the_language_model_of_readme_learns(tmp_path, capfd):
    pytest.importorskip("transformers")
    words = command_of_readme("grpo")
    words[words.index("--out") + 1] = str(tmp_path / "run")
    assert main(words) == 0
    first, last = first_and_last_third(tmp_path / "run" / "progress.csv", "rollout/correct")
    assert first > 0.2 and last > first + 0.02, (first, last)
    noise = capfd.readouterr().err
    assert "Loading weights" not in noise and "nothing was learnt" not in noise
