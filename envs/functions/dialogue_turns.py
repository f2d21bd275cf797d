"""A conversation as turns of a language task: rewards, verdicts, reference messages and candidates."""

from __future__ import annotations

import random
from collections.abc import Sequence

from polyathlon.envs.language import TaskReply, Verdict

from .calls import DecodeError, write_calls
from .checking import Schema
from .dialogue import Dialogue, Script, hear
from .mutations import MISTAKES
from .python_calls import decode_python
from .worlds import World

REWARDS = ("exact", "dense")
DONE = "Done."
NUM_CANDIDATES = 6


def take_message(dialogue: Dialogue, text: str, reward: str) -> TaskReply:
    """Take a message of the policy as one turn of the task; never raises, whatever the text.

    Args:
        dialogue: the conversation, which is changed.
        text: the message.
        reward: "exact" pays 1 at the end of a right conversation; "dense" the share of right turns at the end of any.
    """
    turn = dialogue.turn
    observation = hear(dialogue, text)
    if not dialogue.is_over:
        moved = dialogue.turn > turn
        reason = f"turn {turn + 1} is right" if moved else f"{dialogue.calls} calls were executed in this turn"
        return TaskReply(observation, 0.0, False, Verdict(False, 0.0, False, reason, _parts(dialogue)))
    is_right = dialogue.failure is None
    score = float(is_right) if reward == "exact" else _share(dialogue)
    verdict = Verdict(is_right, score, False, dialogue.failure or "right", _parts(dialogue))
    return TaskReply("", score, True, verdict)


def refuse_message(dialogue: Dialogue, reason: str, reward: str) -> TaskReply:
    """End a conversation over a message that cannot be read."""
    dialogue.failure, dialogue.is_over = reason, True
    score = _share(dialogue) if reward == "dense" else 0.0
    return TaskReply("", score, True, Verdict(False, score, True, reason, _parts(dialogue)))


def _share(dialogue: Dialogue) -> float:
    return dialogue.passed / len(dialogue.script.turns)


def _parts(dialogue: Dialogue) -> dict[str, float]:
    is_right = dialogue.is_over and dialogue.failure is None
    return {"exact": float(is_right), "turns": _share(dialogue), "calls": float(sum(dialogue.results.values()))}


def gold_message(calls: Sequence[str], world: World) -> str:
    """Return the message that executes reference calls."""
    return "[" + ", ".join(map(world.write, calls)) + "]"


def messages_of(script: Script) -> list[str]:
    """Return the messages of a right conversation: the calls of each turn, then words."""
    found, world = [], script.make_world()
    for calls in script.gold:
        found += [gold_message(calls, world), DONE] if calls else [DONE]
    if script.answer is not None:
        found[-1] = script.answer
    return found


def message_candidates(dialogue: Dialogue, task: str, schemas: Sequence[Schema] = ()) -> list[str]:
    """Return messages to choose from now: the right one and plausible wrong ones, in an order that the place decides.

    Args:
        dialogue: the conversation.
        task: id of the task.
        schemas: functions on offer, whose names wrong calls take.
    """
    if dialogue.is_over:
        return []
    script, turn, world = dialogue.script, dialogue.turn, dialogue.world
    rng = random.Random(f"{task} {turn} {dialogue.steps}")
    gold = script.gold[turn]
    done = script.answer if script.answer is not None and turn == len(script.turns) - 1 else DONE
    is_due = bool(gold) and not dialogue.calls
    found = [gold_message(gold, world), done] if is_due else [done]
    others = [one for calls in script.gold for one in calls] or ["f()"]
    found += [gold_message([rng.choice(others)], world), gold_message(rng.sample(others, min(2, len(others))), world)]
    try:
        calls = decode_python(gold_message(gold or others[:1], world))
    except DecodeError:
        calls = []
    found += [write_calls(change(calls, schemas, rng)) for change in MISTAKES.values() if calls]
    found = list(dict.fromkeys(found))[:NUM_CANDIDATES]
    rng.shuffle(found)
    return found
