"""What happened in a game, event by event, and who could see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Event(NamedTuple):
    """One thing that happened.

    Attributes:
        round: number of the round, from 1.
        phase: name of the phase.
        actor: the player who did it; None for the moderator.
        kind: what it is, see `GameLog`.
        payload: its facts.
        visible_to: the players who learn of it.
    """

    round: int
    phase: str
    actor: int | None
    kind: str
    payload: dict[str, Any]
    visible_to: frozenset[int]


class GameLog:
    """The events of one game, in order. What a player sees is the events visible to it, and nothing else.

    | kind | actor | payload | visible to |
    |---|---|---|---|
    | role | | role | the player who gets it |
    | wolves | | players | the werewolves |
    | phase | | (round and phase of the event) | all |
    | propose | werewolf | target | the werewolves |
    | check | Seer | target, is_werewolf | the Seer |
    | protect | Doctor | target | the Doctor |
    | killed | | player, or None | all |
    | hidden | | player (rule `saved_is_hidden`) | all |
    | bid | player | bid | the player |
    | speaker | | player | all |
    | talk | player | act, text, slot | all |
    | vote | voter | target, or None for pass | all (secret votes: the voter) |
    | exiled | | player, or None | all |
    | revealed | | player, role (rule `reveal_role`) | all |
    | invalid | | player, reason | the player |
    | win | | winner | all |

    Attributes:
        events: all of them, for a moderator.
        on_add: called with each new event.
    """

    def __init__(self, on_add: Callable[[Event], None] | None = None) -> None:
        self.events: list[Event] = []
        self.on_add = on_add

    def add(
        self,
        round: int,
        phase: str,
        actor: int | None,
        kind: str,
        payload: dict[str, Any],
        visible_to: Iterable[int],
    ) -> Event:
        """Append an event; see `Event`."""
        seen = visible_to if isinstance(visible_to, frozenset) else frozenset(visible_to)
        event = Event(round, phase, actor, kind, payload, seen)
        self.events.append(event)
        if self.on_add is not None:
            self.on_add(event)
        return event

    def view(self, player: int) -> list[Event]:
        """Return the events that a player can see, in order."""
        return [event for event in self.events if player in event.visible_to]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the events as plain dicts, ready for `json.dumps`."""
        return [{**event._asdict(), "visible_to": sorted(event.visible_to)} for event in self.events]
