"""What a seat sees in numbers, said in words: for players that read text and answer with the number of an action."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .actions import KINDS, SILENT, action_name
from .config import PHASES, ROLES
from .layout import Layout

_SAYS = ("accuses", "vouches for", "claims to be the Seer and accuses", "says nothing")


class Round(NamedTuple):
    """What was said and voted openly in a round: (player, kind of speech, about whom or None), (player, whom or None for a pass)."""

    number: int
    speeches: list[tuple[int, int, int | None]]
    votes: list[tuple[int, int | None]]


def open_rounds(layout: Layout, parts: dict[str, np.ndarray]) -> list[Round]:
    """Return the rounds that the observation shows and in which something was said or voted, the earliest first.

    Args:
        layout: of the observation.
        parts: name -> array, see `Layout`.
    """
    n, found = layout.config.num_players, []
    for back in reversed(range(layout.history)):
        speeches = []
        for slot in parts["speech"][back]:
            for player in np.flatnonzero(slot.any(1)).tolist():
                kind = int(slot[player, :4].argmax())
                speeches.append((player, kind, None if kind == SILENT else int(slot[player, 4:].argmax())))
        named = parts["votes"][back]
        voters = np.flatnonzero(named.any(1)).tolist()
        votes = [(player, None if named[player, n] else int(named[player].argmax())) for player in voters]
        if speeches or votes:
            found.append(Round(int(parts["round"][0]) - back, speeches, votes))
    return found


def _known(parts: dict[str, np.ndarray]) -> list[tuple[int, str]]:
    """Return what is known of the others: the name of a role, or "no werewolf"."""
    me, found = int(parts["self"].argmax()), []
    for player in np.flatnonzero(parts["known"].any(1)).tolist():
        roles = np.flatnonzero(parts["known"][player])
        if player != me:
            found.append((player, ROLES[int(roles[0])] if len(roles) == 1 else "no werewolf"))
    return found


def _phase(layout: Layout, parts: dict[str, np.ndarray]) -> int | None:
    """Return the phase, or None when the game is over."""
    return layout.phases[int(parts["phase"].argmax())] if parts["phase"].any() else None


def describe_seat(layout: Layout, observation: Any, mask: Any) -> str:
    """Tell in sentences who one is, who lives, what is known, what was said and voted, and the numbered actions.

    Args:
        layout: of the observation.
        observation: the vector or its parts.
        mask: [A] bool, the allowed actions.
    """
    parts = _parts(layout, observation)
    n, phase = layout.config.num_players, _phase(layout, parts)
    article = "the" if np.sum(np.array(layout.config.roles) == ROLES[int(parts["role"].argmax())]) == 1 else "a"
    lines = [
        f"You are player_{int(parts['self'].argmax())}, {article} {ROLES[int(parts['role'].argmax())]}. "
        f"Round {int(parts['round'][0])}, {'the game is over' if phase is None else PHASES[phase].replace('_', ' ')}."
    ]
    lines.append("Alive: " + ", ".join(f"player_{i}" for i in np.flatnonzero(parts["alive"])) + ".")
    for column, what in enumerate(("Killed at night", "Voted out")):
        if parts["deaths"][:, column].any():
            dead = np.flatnonzero(parts["deaths"][:, column])
            lines.append(f"{what}: " + ", ".join(f"player_{i}" for i in dead) + ".")
    lines += [f"You know: player_{player} is {'' if ' ' in role else 'a '}{role}." for player, role in _known(parts)]
    if parts["proposals"].any():
        named = [f"player_{i} ({int(parts['proposals'][i])})" for i in np.flatnonzero(parts["proposals"])]
        lines.append("Named by werewolves tonight: " + ", ".join(named) + ".")
    if parts["protected"].any():
        lines.append(f"You protected player_{int(parts['protected'].argmax())} last.")
    for told in open_rounds(layout, parts):
        said = [f"player_{p} {_SAYS[k]}{'' if q is None else f' player_{q}'}" for p, k, q in told.speeches]
        said += [f"player_{p} votes for {'nobody' if q is None else f'player_{q}'}" for p, q in told.votes]
        lines.append(f"Round {told.number}: {'; '.join(said)}.")
    if phase is not None:
        allowed = [f"{a} {action_name(a, n, phase)}" for a in np.flatnonzero(mask).tolist()]
        lines.append("Answer with a number: " + "; ".join(allowed))
    return "\n".join(lines)


def describe_seat_briefly(layout: Layout, observation: Any, mask: Any) -> str:
    """Write the same in few characters: `werewolf 0 vote1 alive 0 1 3 said1 0a1 1s 3a1: 1 3 4`.

    Roles known follow as `2=werewolf` or `2=ok`; speeches are accuse, vouch, claim, silent by their first letters, votes `3>1`, `3>-` a
    pass. The allowed actions stand at the end.
    """
    parts = _parts(layout, observation)
    phase = _phase(layout, parts)
    words = [ROLES[int(parts["role"].argmax())], str(int(parts["self"].argmax()))]
    words.append(f"{'over' if phase is None else PHASES[phase]}{int(parts['round'][0])}")
    words += ["alive", *(str(i) for i in np.flatnonzero(parts["alive"]))]
    words += [f"{player}={'ok' if ' ' in role else role}" for player, role in _known(parts)]
    if parts["proposals"].any():
        words += ["named", *(f"{i}x{int(parts['proposals'][i])}" for i in np.flatnonzero(parts["proposals"]))]
    if parts["protected"].any():
        words += ["protected", str(int(parts["protected"].argmax()))]
    for told in open_rounds(layout, parts):
        words.append(f"said{told.number}")
        words += [f"{p}{KINDS[k][0]}{'' if q is None else q}" for p, k, q in told.speeches]
        words += [f"{p}>{'-' if q is None else q}" for p, q in told.votes]
    allowed: list[int] = [] if phase is None else np.flatnonzero(mask).tolist()
    return f"{' '.join(words)}:{''.join(f' {a}' for a in allowed)}"


def _parts(layout: Layout, observation: Any) -> dict[str, np.ndarray]:
    given = observation if isinstance(observation, dict) else layout.split(np.asarray(observation))
    return {name: np.asarray(part) for name, part in given.items()}
