"""Record the leaderboard's own verdicts on mutated answers, for tests/envs/functions/test_official_verdicts.py.

python scripts/record_function_verdicts.py [--per-entry N] [--dry]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import random
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "benchmark"))
from _official_functions import RIGHT, UNREAD, WRONG, ask

from polyathlon.envs.functions.bfcl import REQUIREMENT, fetch_bfcl
from polyathlon.envs.functions.entries import GRADED, REFUSALS, RELEVANT, Entry, read_entries
from polyathlon.envs.functions.mutations import mutated_answer
from polyathlon.envs.functions.single_turn import judge_answer

TARGET = Path(__file__).resolve().parents[1] / "tests" / "envs" / "functions" / "official_verdicts.json.xz"


def slim(entry: Entry) -> dict[str, Any]:
    """Return what a verdict needs of a problem."""
    functions = [
        {
            "name": one["name"],
            "parameters": {
                "properties": {
                    name: _slim_type(declared) for name, declared in one["parameters"]["properties"].items()
                },
                "required": one["parameters"]["required"],
            },
        }
        for one in entry.functions
    ]
    return {"id": entry.id, "category": entry.category, "turns": [], "functions": functions, "gold": entry.gold}


def _slim_type(declared: dict[str, Any]) -> dict[str, Any]:
    items = {"items": {"type": declared["items"]["type"]}} if "items" in declared else {}
    return {"type": declared["type"], **items}


def texts_of(entry: Entry, number: int) -> list[str]:
    """Return the mutated answers to a problem, the same ones each time."""
    rng = random.Random(f"polyathlon {entry.id}")
    return [mutated_answer(entry, rng) for _ in range(number)]


def own_verdict(entry: Entry, text: str) -> str:
    """Judge an answer with this package's checker."""
    verdict = judge_answer(entry, text)
    return RIGHT if verdict.correct else UNREAD if verdict.invalid else WRONG


def main() -> None:
    """Record, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-entry", type=int, default=20)
    parser.add_argument("--dry", action="store_true", help="compare, write nothing")
    arguments = parser.parse_args()
    folder = fetch_bfcl()
    entries = [e for name in (*GRADED, *REFUSALS, *RELEVANT) for e in read_entries(folder, name).values()]
    numbers = [arguments.per_entry if entry.gold else 2 for entry in entries]
    texts = [texts_of(entry, number) for entry, number in zip(entries, numbers)]
    cases = {
        "entries": [{**asdict(e), "function": list(e.functions), "language": e.language} for e in entries],
        "texts": texts,
    }
    with tempfile.TemporaryDirectory() as work:
        official = ask(cases, Path(work))[-1]
    flat = [(entry, text) for entry, some in zip(entries, texts) for text in some]
    own = "".join(own_verdict(entry, text) for entry, text in flat)
    print(f"{len(own)} answers; official {dict(Counter(official))}; mutated calls {sum(numbers)}")
    differing = [k for k in range(len(own)) if own[k] != official[k]]
    for k in differing[:40]:
        print(flat[k][0].id, "official", official[k], "own", own[k], flat[k][1][:300])
    print(f"{len(differing)} disagreements")
    if not arguments.dry:
        digest = hashlib.sha256("\0".join(text for _, text in flat).encode("utf-8", "surrogatepass")).hexdigest()
        record = {
            "source": f"problems of {REQUIREMENT} (Apache-2.0), without their texts",
            "entries": [slim(entry) for entry in entries],
            "numbers": numbers,
            "digest": digest,
            "verdicts": official,
        }
        TARGET.parent.mkdir(parents=True, exist_ok=True)
        TARGET.write_bytes(lzma.compress(json.dumps(record, separators=(",", ":")).encode(), preset=9))
        print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
