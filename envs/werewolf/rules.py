"""The rules in small: the deal, who dies, who is voted out, who has won."""

from __future__ import annotations

from collections.abc import Sequence

from polyathlon.envs import keyed
from polyathlon.envs.keyed import Key

from . import state as streams
from .config import WEREWOLF, WerewolfConfig


def deal_roles(config: WerewolfConfig, key: Key) -> list[int]:
    """Deal the roles, uniformly; return indices into `ROLES` in seat order."""
    return [config.role_numbers[rank] for rank in keyed.ranks(key, 0, config.num_players, streams.DEAL)]


def resolve_night(kill: int | None, protect: int | None) -> int | None:
    """Return who dies: the victim, unless the Doctor protected it."""
    return None if kill == protect else kill


def tally(votes: Sequence[int], alive: Sequence[bool], rule: str, tie: str, key: Key, step: int) -> int | None:
    """Count a vote.

    Args:
        votes: whom each player named; -1 or n for nobody.
        alive: who lives.
        rule: "plurality" or "majority" (more than half of the living).
        tie: "none" or "random".
        key: of the game.
        step: the round, which keys the draw.

    Returns:
        Who is voted out, or None.
    """
    n = len(alive)
    counts = [0] * n
    for target in votes:
        if 0 <= target < n:
            counts[target] += 1
    top = max(counts)
    tied = [i for i in range(n) if counts[i] == top]
    if not top or (len(tied) > 1 and tie == "none") or (rule == "majority" and 2 * top <= sum(alive)):
        return None
    return tied[0] if len(tied) == 1 else keyed.choice(key, step, tied, streams.VOTE_TIE)


def winner(roles: Sequence[int], alive: Sequence[bool]) -> str | None:
    """Return "village" where no werewolf lives, "wolves" where they are as many as the others, else None."""
    wolves = sum([role == WEREWOLF for role, living in zip(roles, alive) if living])
    if not wolves:
        return "village"
    return "wolves" if 2 * wolves >= sum(alive) else None
