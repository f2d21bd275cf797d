"""The one action space of all phases: whom to name, pass, what to say."""

from __future__ import annotations

import re
from functools import lru_cache

from .config import BID, BIDS, LAST_WORDS, NIGHT, TALK, VOTE

ACCUSE, VOUCH, CLAIM, SILENT = range(4)
KINDS = ("accuse", "vouch", "claim", "silent")


def num_actions(num_players: int) -> int:
    """Return n + 1 + K: n targets, pass, and K = 3n + 1 talk acts."""
    return num_players + 1 + 3 * num_players + 1


def talk_action(kind: str, target: int | None, num_players: int) -> int:
    """Return the action of a talk act.

    Args:
        kind: "accuse", "vouch", "claim" (to be the Seer, and accuse) or "silent".
        target: the player it is about; None for "silent".
        num_players: n.
    """
    start = num_players + 1 + KINDS.index(kind) * num_players
    return start + (0 if target is None else target)


def read_action(action: int, num_players: int, phase: int) -> tuple[str, int | None]:
    """Return what an action means in a phase: ("target", i), ("pass", None), ("bid", b) or a talk act.

    Pass in the discussion is to say nothing.
    """
    n = num_players
    if phase in (TALK, LAST_WORDS):
        act = talk_act(action, n)
        return KINDS[act // n], (None if act == SILENT * n else act % n)
    if phase == BID:
        return "bid", action
    return ("pass", None) if action == n else ("target", action)


def talk_act(action: int, num_players: int) -> int:
    """Return the number of the talk act, from 0; pass counts as saying nothing."""
    return 3 * num_players if action == num_players else action - num_players - 1


def action_name(action: int, num_players: int, phase: int) -> str:
    """Say an action in words."""
    kind, number = read_action(action, num_players, phase)
    words = {
        "pass": "pass",
        "silent": "say nothing",
        "bid": f"bid {number}",
        "accuse": f"accuse player_{number}",
        "vouch": f"vouch for player_{number}",
        "claim": f"claim to be the Seer and accuse player_{number}",
    }
    return words.get(kind, f"player_{number}")


def speech(act: int, num_players: int) -> str:
    """Return the words of a talk act, by its number from 0."""
    kind, target = act // num_players, act % num_players
    if kind == SILENT:
        return ""
    return (
        f"I accuse player_{target}.",
        f"I vouch for player_{target}.",
        f"I am the Seer: player_{target} is a Werewolf.",
    )[kind]


@lru_cache
def speeches(num_players: int) -> tuple[str, ...]:
    """Return the words of all talk acts."""
    return tuple(speech(act, num_players) for act in range(3 * num_players + 1))


_PLAYER = r"(?:player|p)[\s_]*(\d{1,4})(?!\d)"
_CLAIM = re.compile(r"\bI(?:\s+am|'m|\s+claim\s+to\s+be)\s+the\s+seer\b", re.IGNORECASE)
_ACCUSE = re.compile(rf"\b(?:accuse|suspect|vote\s+(?:for|out))\s+\[?{_PLAYER}", re.IGNORECASE)
_IS_WOLF = re.compile(rf"\[?{_PLAYER}\]?\s+is\s+(?:a\s+|the\s+)?(?:were)?wolf", re.IGNORECASE)
_VOUCH = re.compile(rf"\b(?:vouch\s+for|trust)\s+\[?{_PLAYER}", re.IGNORECASE)


def read_speech(text: str, num_players: int) -> int:
    """Return the talk act that free words amount to: a claim, an accusation, a vouching, else saying nothing.

    It is what the structured observation shows of an utterance; the text observation shows the words.
    """
    patterns = ((ACCUSE, _IS_WOLF), (ACCUSE, _ACCUSE), (VOUCH, _VOUCH))
    for kind, pattern in patterns:
        found = pattern.search(text)
        if found and int(found.group(1)) < num_players:
            if kind == ACCUSE and _CLAIM.search(text):
                kind = CLAIM
            return kind * num_players + int(found.group(1))
    return SILENT * num_players


_BRACKET = re.compile(r"\[\s*(?:player[\s_]*)?(\d{1,4}|pass)\s*\]", re.IGNORECASE)
_NAME = re.compile(r"\bplayer[\s_]*(\d{1,4})(?!\d)", re.IGNORECASE)
_PASS = re.compile(r"\s*pass\W*", re.IGNORECASE)


def parse_target(text: str, legal: list[int] | tuple[int, ...], num_players: int) -> int | None:
    """Read whom a text names: "[Player 3]", "Player 3", "player_3" or "[3]"; "pass" or "[pass]".

    The last of several in brackets wins; without brackets exactly one player must be named.

    Args:
        text: what was written.
        legal: allowed actions, n for pass.
        num_players: n.

    Returns:
        The action, or None when it cannot be read or is not allowed.
    """
    found = _BRACKET.findall(text)
    if found:
        number = num_players if found[-1].lower() == "pass" else int(found[-1])
        if number >= num_players and found[-1].lower() != "pass":
            return None
    elif _PASS.fullmatch(text):
        number = num_players
    else:
        names = {int(name) for name in _NAME.findall(text)}
        if len(names) != 1:
            return None
        number = names.pop()
        if number >= num_players:
            return None
    return number if number in legal else None


_BID = re.compile(r"\d{1,4}")


def parse_bid(text: str) -> int | None:
    """Read a bid, the one number from 0 to 4 in a text; None where there is none or several."""
    found = _BID.findall(text)
    return int(found[0]) if len(found) == 1 and int(found[0]) < BIDS else None


def names_targets(phase: int) -> bool:
    """Tell whether players name others in a phase."""
    return phase in (NIGHT, VOTE)
