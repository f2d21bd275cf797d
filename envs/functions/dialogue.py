"""Conversations in turns: the policy calls tools until a turn is done, and a twin world says what should have come of it.

The check is that of the Berkeley Function Calling Leaderboard's multi-turn categories (Patil et al. 2025): after each turn
the public state must equal that of a world in which the reference calls were executed, and every text that they gave in
this turn must be among the texts that the policy's calls have given so far.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from .calls import Call, DecodeError, shown
from .checking import normalise_text
from .python_calls import decode_python
from .worlds import World, Written, as_written, read_written

MAX_STEPS = 20
MAX_SHOWN = 4096
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,40}|[0-9]{1,3}(?:,[0-9]{3}){1,12})(?:\.[0-9]{1,40})?|[+-]?\.[0-9]{1,40}")


@dataclass(frozen=True)
class Script:
    """What a conversation asks and what is right.

    Attributes:
        turns: what the user says in each turn.
        gold: the reference calls of each turn, as source text.
        make_world: makes the world at the start.
        answer: a text that the last message must hold as a whole word; None: any message will do.
        strict_empty: in a turn without reference calls, any executed call is wrong; else such turns are not checked.
        max_steps: a turn with more messages of calls than this fails.
        check: extra condition on (world, last message) at the end.
        reject: says why a call is not executed, or None.
    """

    turns: Sequence[str]
    gold: Sequence[Sequence[str]]
    make_world: Callable[[], World]
    answer: str | None = None
    strict_empty: bool = False
    max_steps: int = MAX_STEPS
    check: Callable[[World, str], bool] | None = None
    reject: Callable[[Call], str | None] | None = None


@dataclass
class Dialogue:
    """A running conversation.

    Attributes:
        script: what is asked.
        world: what the policy acts on.
        twin: what the reference calls act on.
        turn: index of the current turn.
        steps: messages of calls in this turn.
        calls: calls that were executed in this turn.
        results: how often each text came out of the policy's calls so far.
        passed: number of turns that were right.
        failure: what was wrong, once something was.
        is_over: the conversation has ended.
        last_error: why the last message held no calls.
    """

    script: Script
    world: World
    twin: World
    turn: int = 0
    steps: int = 0
    calls: int = 0
    results: Counter[str] = field(default_factory=Counter)
    passed: int = 0
    failure: str | None = None
    is_over: bool = False
    last_error: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        # classes that were loaded from a file cannot be pickled; what was executed can
        kept = {key: value for key, value in vars(self).items() if key not in ("world", "twin")}
        return {**kept, "executed": (self.world.history, self.twin.history)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        executed = state.pop("executed")
        vars(self).update(state)
        self.world, self.twin = (self.script.make_world() for _ in executed)
        for world, history in zip((self.world, self.twin), executed):
            for call in history:
                world.execute(call)


def open_dialogue(script: Script) -> Dialogue:
    """Start a conversation."""
    return Dialogue(script, script.make_world(), script.make_world())


def hear(dialogue: Dialogue, text: str) -> str:
    """Take one message of the policy and return what it is told next: results, or the user's next turn.

    Args:
        dialogue: the conversation, which is changed.
        text: the message; one without calls ends the turn.
    """
    try:
        calls, dialogue.last_error = decode_python(text), None
        written = [as_written(call, dialogue.world.methods) for call in calls]
    except DecodeError as error:
        calls, written, dialogue.last_error = [], [], str(error)
    except RecursionError:
        calls, written, dialogue.last_error = [], [], "calls are nested too deep"
    if calls:
        return _execute(dialogue, calls, written)
    _end_turn(dialogue, text)
    return "" if dialogue.is_over else dialogue.script.turns[dialogue.turn]


def _execute(dialogue: Dialogue, calls: Sequence[Call], written: Sequence[Written]) -> str:
    lines = []
    for call, one in zip(calls, written):
        reason = None if dialogue.script.reject is None else dialogue.script.reject(call)
        result = dialogue.world.execute(one) if reason is None else f"Error: {reason}"
        dialogue.results[result] += 1
        lines.append(f"{call.name[:60]}: {_cut(result)}")
    dialogue.steps += 1
    dialogue.calls += len(calls)
    if dialogue.steps > dialogue.script.max_steps:
        _fail(dialogue, f"more than {dialogue.script.max_steps} messages of calls in turn {dialogue.turn + 1}")
        return ""
    return _cut("\n".join(lines))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + f"… [{len(text) - MAX_SHOWN} characters cut]"


def _fail(dialogue: Dialogue, reason: str) -> None:
    dialogue.failure, dialogue.is_over = reason, True


def _end_turn(dialogue: Dialogue, text: str) -> None:
    script, number = dialogue.script, dialogue.turn + 1
    gold = script.gold[dialogue.turn]
    expected = Counter(dialogue.twin.execute(read_written(call)) for call in gold)
    if gold and not dialogue.calls:
        return _fail(dialogue, f"nothing was executed in turn {number}")
    if not gold and script.strict_empty and dialogue.calls:
        return _fail(dialogue, f"calls were executed in turn {number}, where none helps")
    if gold and not dialogue.world.equals(dialogue.twin):
        return _fail(dialogue, f"the state after turn {number} is not what was asked for")
    missing = expected - dialogue.results if gold else Counter()
    if missing:
        return _fail(dialogue, f"a result of turn {number} is missing: {shown(next(iter(missing)))}")
    dialogue.turn, dialogue.steps, dialogue.calls = number, 0, 0
    if number == len(script.turns):
        reason = _wrong_end(script, dialogue.world, text)
        if reason is not None:
            return _fail(dialogue, reason)
        dialogue.is_over = True
    dialogue.passed += 1
    return None


def _wrong_end(script: Script, world: World, text: str) -> str | None:
    if script.answer is not None and not holds_answer(text, script.answer):
        return "the last message does not hold the answer"
    if script.check is not None and not script.check(world, text):
        return "the check at the end failed"
    return None


def holds_answer(text: str, answer: str) -> bool:
    """Return whether a text holds an answer as whole words, whatever their case and punctuation; numbers by their value."""
    wanted = normalise_text(answer)
    spoken = text.replace("(", " ").replace(")", " ").split()
    known = {word: _word(word) for word in set(spoken)}
    words = [known[word] for word in spoken]
    target = [_word(word) for word in answer.split()]
    runs = (words[i : i + len(target)] for i in range(len(words) - len(target) + 1))
    # a text without its signs says of numbers less than they are: 3.5 would be 35, and -5 would be 5
    is_loose = all(type(word) is str for word in target)
    return bool(wanted) and (any(run == target for run in runs) or (is_loose and normalise_text(text) == wanted))


def _word(word: str) -> str | Decimal:
    """Return a word for comparisons: the value of a number, else its text without case and punctuation."""
    bare = word.strip("\"'!?:;*_`").rstrip(".,").strip("\"'!?:;*_`")
    if _NUMBER.fullmatch(bare):
        return Decimal(bare.replace(",", ""))
    return normalise_text(word).strip("\"'!?:;")
