"""Reading and judging function calls against the Berkeley Function Calling Leaderboard's own parser and checker."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _harness import Row, compare, elsewhere, here, pinned, write
from _harness import table as show
from _official_functions import REQUIREMENT, RIGHT, UNREAD, WRONG, ask, official_python

from polyathlon.envs.functions.bfcl import fetch_bfcl
from polyathlon.envs.functions.entries import GRADED, Entry, read_entries
from polyathlon.envs.functions.mutations import mutated_answer
from polyathlon.envs.functions.single_turn import judge_answer, reference_answer

OWN, PEER = "polyathlon", "the leaderboard's own"
OFFICIAL = Path(__file__).with_name("_official_functions.py")
Jobs = list[tuple[Entry, list[str]]]


def right_answers(entry: Entry) -> list[str]:
    """Return the right answer to a problem, where one is known."""
    answer = reference_answer(entry)
    return [] if answer is None else [answer]


def near_answers(entry: Entry) -> list[str]:
    """Return four answers near the right one."""
    rng = random.Random(f"benchmark {entry.id}")
    return [mutated_answer(entry, rng) for _ in range(4)]


def jobs_of(entries: list[Entry], answers: Callable[[Entry], list[str]]) -> Jobs:
    """Return problems with their answers."""
    return [(entry, answers(entry)) for entry in entries]


def verdicts(jobs: Jobs) -> str:
    """Judge all answers."""
    found = [judge_answer(entry, text) for entry, texts in jobs for text in texts]
    return "".join(RIGHT if one.correct else UNREAD if one.invalid else WRONG for one in found)


def measure(jobs: Jobs, pairs: int, folder: Path) -> list[Row]:
    """Compare the speed on some answers, after making sure that every verdict is the same.

    Raises:
        RuntimeError: a verdict differs.
    """
    entries = [{**asdict(e), "function": list(e.functions), "language": e.language} for e, _ in jobs]
    cases = {"entries": entries, "texts": [texts for _, texts in jobs]}
    if verdicts(jobs) != ask(cases, folder)[-1]:
        raise RuntimeError("the verdicts differ: python scripts/record_function_verdicts.py --dry shows where")
    path = folder / "timed.json"
    path.write_text(json.dumps(cases))
    subjects = {
        PEER: elsewhere(official_python(), OFFICIAL, str(path), "--what", "time"),
        OWN: here(lambda: float(len(verdicts(jobs)))),
    }
    return compare(subjects, PEER, pairs)


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7, help="interleaved turns that count")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    arguments = parser.parse_args()
    data = fetch_bfcl()
    entries = [entry for category in GRADED for entry in read_entries(data, category).values()]
    python = [entry for entry in entries if entry.language == "python"]
    other = [entry for entry in entries if entry.language != "python"]
    sections = {}
    with tempfile.TemporaryDirectory() as work, pinned(1):
        for heading, some, answers in (
            ("Python, right answers", python, right_answers),
            ("Python, answers near the right ones", python, near_answers),
            ("Java and JavaScript, right answers", other, right_answers),
            ("Java and JavaScript, answers near the right ones", other, near_answers),
        ):
            jobs = jobs_of(some, answers)
            measured = measure(jobs, arguments.pairs, Path(work))
            count = sum(len(texts) for _, texts in jobs)
            sections[f"{heading} ({count:,} answers to {len(some):,} problems)"] = measured
            print(show(measured, "answer"), flush=True)
    notes = (
        f"The answers are read and judged from the text on: decoding and checking together, on one core. The peer is {REQUIREMENT} "
        "in an environment of its own, with its pinned tree-sitter. Before anything is measured, every verdict is compared with the "
        "peer's (right, wrong, or not readable); a difference stops the run. Our reading counts brackets, tags and types against "
        "budgets, which the peer has none of: hostile text ends with a verdict, and all other text pays for the counting."
    )
    if not arguments.dry:
        write("function_calling", "Function calls, read and judged", sections, "answer", notes)


if __name__ == "__main__":
    main()
