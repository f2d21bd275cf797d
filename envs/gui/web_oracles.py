"""Right actions on pages of MiniWoB++, from what the page shows."""

from __future__ import annotations

from . import oracles_forms, oracles_reading
from .oracle_parts import ORACLES, Look, Stuck

__all__ = ["ORACLES", "Stuck", "next_call", "oracles_forms", "oracles_reading"]


def next_call(page: str, look: Look, done: list[tuple[Look, str]]) -> str:
    """Return the next right call.

    Args:
        page: name of the page.
        look: what it shows now.
        done: what it showed before each earlier call of this episode, and the call.

    Raises:
        Stuck: the oracle does not find what it looks for.
    """
    looks = [before for before, _ in done] + [look]
    player = ORACLES[page](looks[0])
    try:
        call = next(player)
        for shown in looks[1:]:
            call = player.send(shown)
    except (RuntimeError, StopIteration, KeyError, IndexError, ValueError, AttributeError) as error:
        raise Stuck(f"{page}: {error!r}") from error
    return call
