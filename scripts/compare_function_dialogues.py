"""Compare the verdicts on conversations with the leaderboard's own: reference calls, and mutated ones.

python scripts/compare_function_dialogues.py [--per-entry N]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "benchmark"))
from _official_functions import ask

from polyathlon.envs.functions.calls import DecodeError, write_calls
from polyathlon.envs.functions.conversations import Conversation
from polyathlon.envs.functions.dialogue import MAX_STEPS, Script, hear, open_dialogue
from polyathlon.envs.functions.dialogue_turns import DONE
from polyathlon.envs.functions.entries import MULTI_TURN
from polyathlon.envs.functions.function_call import FunctionCall
from polyathlon.envs.functions.mutations import MISTAKES
from polyathlon.envs.functions.python_calls import decode_python


def turns_of(script: Script, rng: random.Random, is_mutated: bool) -> list[list[str]]:
    """Return the messages of each turn: the reference calls, at once or one by one, with a mistake in some turn."""
    world = script.make_world()
    turns = [[world.write(call) for call in calls] for calls in script.gold]
    wrong = rng.randrange(len(turns)) if is_mutated else -1
    found: list[list[str]] = []
    for number, calls in enumerate(turns):
        if number == wrong:
            calls = _mistaken(calls, turns, rng)
        one_by_one = rng.random() < 0.5 and len(calls) <= MAX_STEPS
        found.append([f"[{call}]" for call in calls] if one_by_one else ["[" + ", ".join(calls) + "]"] if calls else [])
    return found


def _mistaken(calls: list[str], turns: list[list[str]], rng: random.Random) -> list[str]:
    kind = rng.random()
    if kind < 0.15 or not calls:
        return calls + rng.choice([one for one in turns if one] or [["pwd()"]])
    if kind < 0.3:
        return calls[::-1]
    if kind < 0.4:
        return []
    try:
        read = decode_python("[" + ", ".join(calls) + "]")
    except DecodeError:
        return calls
    changed = MISTAKES[rng.choice(list(MISTAKES))](read, (), rng)
    return [write_calls([call])[1:-1] for call in changed]


def own_verdict(script: Script, turns: list[list[str]]) -> str:
    """Play a conversation in this package's worlds."""
    dialogue = open_dialogue(script)
    for messages in turns:
        for message in [*messages, DONE]:
            if not dialogue.is_over:
                hear(dialogue, message)
    return "1" if dialogue.is_over and dialogue.failure is None else "0"


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-entry", type=int, default=5)
    arguments = parser.parse_args()
    cases: list[dict[str, Any]] = []
    own = ""
    for category in MULTI_TURN:
        task = FunctionCall(category, "bfcl")
        for entry in task.entries.values():
            rng = random.Random(f"polyathlon {entry.id}")
            script = Conversation(task.folder, entry, False, "signatures").script()
            for k in range(1 + arguments.per_entry):
                turns = turns_of(script, rng, k > 0)
                own += own_verdict(script, turns)
                cases.append({"entry": {"id": entry.id, **entry.setting}, "gold": entry.gold, "turns": turns})
    with tempfile.TemporaryDirectory() as work:
        official = ask({"dialogues": cases}, Path(work), "--what", "dialogues")[-1]
    differing = [k for k in range(len(own)) if own[k] != official[k]]
    for k in differing[:20]:
        print(cases[k]["entry"]["id"], "official", official[k], "own", own[k], str(cases[k]["turns"])[:600])
    print(f"{len(own)} conversations; official {dict(Counter(official))}; {len(differing)} disagreements")


if __name__ == "__main__":
    main()
