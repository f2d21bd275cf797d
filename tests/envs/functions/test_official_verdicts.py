"""Our verdicts equal those of the Berkeley Function Calling Leaderboard's own checker on recorded answers.

`official_verdicts.json.xz` holds the leaderboard's problems (Apache License 2.0, https://github.com/ShishirPatil/gorilla)
without their texts, and its verdicts on answers near the gold ones, which are made again here: 0 not readable, 1 wrong,
2 right. `scripts/record_function_verdicts.py` writes the file.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import random
from collections import Counter
from pathlib import Path

import pytest

from polyathlon.envs.functions.entries import Entry
from polyathlon.envs.functions.mutations import mutated_answer
from polyathlon.envs.functions.single_turn import judge_answer, reference_answer

pytest.importorskip("tree_sitter_java")
# no answer is right for these, whoever answers: gold contradicts the function's own schema, or is no source of the language
IMPOSSIBLE = {
    "live_simple_106-63-0", "live_simple_112-68-0", "live_multiple_862-181-3", "live_multiple_964-207-0", "simple_java_36",
    "simple_java_65",
}  # fmt: skip


@pytest.fixture(scope="module")
def record() -> dict:
    return json.loads(lzma.decompress(Path(__file__).with_name("official_verdicts.json.xz").read_bytes()))


@pytest.fixture(scope="module")
def entries(record) -> list[Entry]:
    return [Entry(**entry) for entry in record["entries"]]


def test_every_recorded_verdict_is_ours(record, entries):
    answers = []
    for entry, number in zip(entries, record["numbers"], strict=True):
        rng = random.Random(f"polyathlon {entry.id}")
        answers += [(entry, mutated_answer(entry, rng)) for _ in range(number)]
    told = hashlib.sha256("\0".join(text for _, text in answers).encode("utf-8", "surrogatepass")).hexdigest()
    assert told == record["digest"], (
        "the answers changed: record the verdicts again with scripts/record_function_verdicts.py"
    )
    assert len(answers) >= 50_000 and min(Counter(record["verdicts"]).values()) > 5_000
    for (entry, text), official in zip(answers, record["verdicts"], strict=True):
        verdict = judge_answer(entry, text)
        own = "2" if verdict.correct else "0" if verdict.invalid else "1"
        assert own == official, f"{entry.id}: {text}: {verdict}, the leaderboard says {official}"


def test_gold_is_right_for_every_problem_that_can_be_solved(entries):
    graded = [entry for entry in entries if entry.gold]
    assert len(graded) == 2501
    assert {entry.id for entry in graded if reference_answer(entry) is None} == IMPOSSIBLE
