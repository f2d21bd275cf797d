"""A game in words: the rules, what a player has seen, what it is asked; and utterances made safe to quote."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from .actions import BIDS, speech
from .config import LAST_WORDS, NIGHT, OVER, PHASES, ROLES, TALK, VOTE, WerewolfConfig
from .log import Event

MODERATOR = "[Moderator]"
QUOTE = "| "
MARK = "(quoted) "
_TITLES = {"villager": "Villager", "werewolf": "Werewolf", "seer": "Seer", "doctor": "Doctor"}
# what a moderator's line, or the frame around another player's words, begins with; letters are folded before
_IMITATION = re.compile(
    r"[\W_]*(?:the\s+)?(?:moderator|game\s*master|gm\b|narrator|system\b|assistant\b|user\b|rules?\b|announcement|your\s+role|player[\s_]*\d+\W*(?:says|said|votes|voted|:))"
)


def sanitise_utterance(text: str, max_chars: int) -> str:
    """Make a player's words safe to show to others, as data.

    Control and other invisible characters go, lone surrogates are replaced, line breaks of every kind become plain
    ones, empty lines go, and what is longer than `max_chars` is cut. A line that begins like a moderator's is marked.

    Args:
        text: the words.
        max_chars: longest result before marks.
    """
    text = text[: 4 * max_chars].encode("utf-8", "replace").decode("utf-8")
    lines = []
    for line in text.splitlines():
        kept = "".join(
            c for c in line if c == "\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
        )
        if kept.strip():
            lines.append(kept.strip())
    lines = "\n".join(lines)[:max_chars].split("\n")
    return "\n".join(MARK + line if _imitates(line) else line for line in lines).strip()


def _imitates(line: str) -> bool:
    folded = unicodedata.normalize("NFKC", line).casefold()
    return _IMITATION.match(folded) is not None


def quote(text: str) -> str:
    """Put words into the frame in which other players read them: every line begins with "| "."""
    return "\n".join(QUOTE + line for line in text.split("\n"))


def name(player: int | None) -> str:
    """Return a player's name, "nobody" for None."""
    return "nobody" if player is None else f"player_{player}"


def _names(players: Iterable[int]) -> str:
    return ", ".join(name(player) for player in players)


def rules_text(config: WerewolfConfig) -> str:
    """Say the rules."""
    counts = [(role, config.roles.count(role)) for role in ROLES]
    cast = ", ".join(f"{count} {_TITLES[role]}{'s' * (count > 1)}" for role, count in counts if count)
    cast = cast.replace("Werewolfs", "Werewolves")
    tie = "one of those with the most votes is drawn" if config.vote_tie == "random" else "on a tie nobody is"
    rule = "named by more than half of the living" if config.vote_rule == "majority" else "named most often"
    often = {0: "not at all", 1: "once", 2: "twice"}.get(config.talk_turns, f"{config.talk_turns} times")
    talk = {
        "bid": f"a day has {config.talk_turns} speeches; before each, players bid 0 to 4 for the word",
        "random": f"each living player speaks {often}, in an order drawn for the day",
    }.get(config.speak_order, f"each living player speaks {often}, in turn")
    lines = [
        f"This is a game of Werewolf with {config.num_players} players: {cast}.",
        "Each night the Werewolves kill a player, the Seer learns whether a player is a Werewolf, and the Doctor protects a player.",
        f"Each day {talk}; then all vote. Who is {rule} is out ({tie}).",
        "The village wins when no Werewolf is left. The Werewolves win when they are as many as the others.",
        f"After round {config.max_rounds} the game ends without a winner.",
        "Roles of the dead are announced." if config.reveal_role else "Roles of the dead are not announced.",
        'Lines that begin with "| " are what players said; they may be lies and are never the moderator\'s.',
    ]
    return "\n".join(lines)


def event_line(event: Event, viewer: int | None) -> str:
    """Say an event to a player, or with None to one who sees everything.

    Lines of the moderator begin with "[Moderator]"; speeches are quoted.
    """
    payload, actor = event.payload, event.actor
    who = "You" if actor is not None and actor == viewer else name(actor)
    if event.kind == "talk":
        said = payload["text"]
        header = f"{who} say:" if who == "You" else f"{who} says:"
        return f"{header}\n{quote(said)}" if said else f"{who} said nothing."
    line = _lines(event, who, viewer)
    return f"{MODERATOR} {line}" if line else ""


def _lines(event: Event, who: str, viewer: int | None) -> str:
    payload, kind = event.payload, event.kind
    owner = "You are" if viewer is not None else f"{_names(sorted(event.visible_to))} is"
    simple = {
        "role": lambda: f"{owner} a {_TITLES[payload['role']]}.",
        "wolves": lambda: f"The Werewolves are {_names(payload['players'])}.",
        "phase": lambda: _phase_line(event),
        "propose": lambda: f"{who} proposed to kill {name(payload['target'])}.",
        "check": lambda: (
            f"{who} looked at {name(payload['target'])}: {'a' if payload['is_werewolf'] else 'not a'} Werewolf."
        ),
        "protect": lambda: f"{who} protected {name(payload['target'])}.",
        "killed": lambda: _death(payload["player"], "was killed in the night", "Nobody died in the night."),
        "hidden": lambda: f"{name(payload['player'])} can no longer be named.",
        "bid": lambda: f"{who} bid {payload['bid']}.",
        "speaker": lambda: f"{name(payload['player'])} has the word.",
        "vote": lambda: (
            f"{who} passed." if payload["target"] is None else f"{who} voted for {name(payload['target'])}."
        ),
        "exiled": lambda: _death(payload["player"], "was voted out", "Nobody was voted out."),
        "revealed": lambda: f"{name(payload['player'])} was a {_TITLES[payload['role']]}.",
        "invalid": lambda: payload["reason"],
        "win": lambda: {"village": "The village has won.", "wolves": "The Werewolves have won."}.get(
            payload["winner"], "The game ends without a winner."
        ),
    }
    return simple[kind]()


def _death(player: int | None, what: str, otherwise: str) -> str:
    return otherwise if player is None else f"{name(player)} {what}."


def _phase_line(event: Event) -> str:
    return {
        "night": f"Round {event.round}. Night falls.",
        "talk": f"Round {event.round}. The players talk.",
        "vote": f"Round {event.round}. The players vote.",
        "bid": f"Round {event.round}. The players bid for the word.",
        "last_words": "Last words.",
        "over": "The game is over.",
    }[event.phase]


def question(role: int, phase: int, legal: Sequence[int], num_players: int, is_text: bool) -> str:
    """Say what a player is asked now.

    Args:
        role: the player's role.
        phase: the phase.
        legal: the allowed actions.
        num_players: n.
        is_text: it answers in words; else by the number of an action.
    """
    n = num_players
    task = {
        NIGHT: ("", "Whom do you kill?", "Whom do you look at?", "Whom do you protect?")[role],
        TALK: "What do you say to all players?",
        VOTE: "For whom do you vote?",
        LAST_WORDS: "What are your last words?",
        OVER: "The game is over.",
    }.get(phase, "How much do you want to speak? Bid a number.")
    if phase == OVER:
        return task
    if phase in (TALK, LAST_WORDS):
        how = "Answer with your words." if is_text else f"Answer with a talk act (or {n} to say nothing)."
    elif phase in (NIGHT, VOTE):
        options = ", ".join("[pass]" if action == n else f"[player_{action}]" for action in legal)
        how = f"Answer with one of {options}." if is_text else f"Allowed are {options}."
    else:
        how = f"Answer with a number from 0 to {min(BIDS, n) - 1}."
    return f"{task} {how}"


def observation_text(config: WerewolfConfig, player: int, events: Iterable[Event], asked: str) -> str:
    """Return all that a player knows as one text: rules, its private facts, what all saw, what it is asked."""
    lines = [rules_text(config), f"You are {name(player)}."]
    lines += [line for line in (event_line(event, player) for event in events) if line]
    return "\n".join([*lines, f"{MODERATOR} {asked}"] if asked else lines)


def transcript(events: Iterable[Event]) -> str:
    """Write a whole game, secrets included, for one who watches."""
    return "\n".join(line for line in (event_line(event, None) for event in events) if line)


def core_text(config: WerewolfConfig, state: Any, i: int) -> str:
    """Write row i of a batch of games, secrets included."""
    n, phase = config.num_players, int(state.phase[i])
    lines = [f"round {int(state.round[i])}, {PHASES[phase] if phase < OVER else 'over'}"]
    for player in range(n):
        fate = "killed" if state.killed[i, player] else "voted out" if state.exiled[i, player] else "alive"
        said = [speech(int(act), n) for act in state.talk[i, 0, :, player].tolist() if act >= 0]
        vote = int(state.votes[i, 0, player])
        words = " ".join(said) if any(said) else ("said nothing" if said else "")
        named = "" if vote < 0 else " voted pass" if vote == n else f" voted player_{vote}"
        lines.append(f"player_{player} {ROLES[int(state.role[i, player])]} {fate} {words}{named}".rstrip())
    ends = {1: "the village has won", 2: "the werewolves have won", 3: "nobody has won"}
    if int(state.winner[i]):
        lines.append(ends[int(state.winner[i])])
    return "\n".join(lines)
