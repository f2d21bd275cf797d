"""What the players of one game see as numbers, kept up to date event by event."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import PHASES, ROLES, WEREWOLF
from .layout import PRIVATE, Layout
from .log import Event

_NOT_A_WEREWOLF = np.array([name != "werewolf" for name in ROLES], np.int8)


class Observer:
    """The structured observation of every player, made from the events that it can see and nothing else.

    Events that all see change the public part; others change the private parts of those who see them.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        n = self.n = layout.config.num_players
        self.public = np.zeros(layout.size - layout.num_private, np.int8)
        self.private = np.zeros((n, layout.num_private), np.int8)
        parts = {name: self._part(name, shape) for name, shape in layout.parts.items() if name not in PRIVATE}
        self.round, self.phase, self.alive = parts["round"], parts["phase"], parts["alive"]
        self.deaths, self.votes, self.speech = parts["deaths"], parts["votes"], parts["speech"]
        self.known = self.private[:, layout.where["known"]].reshape(n, n, len(ROLES))
        self.own = layout.where
        self.places = {PHASES[phase]: i for i, phase in enumerate(layout.phases)}
        self.words = _words(n)
        self.pieces = [
            (name, layout.where[name], shape if len(shape) > 1 else None) for name, shape in layout.parts.items()
        ]
        self.changes = {
            "phase": self._on_phase,
            "talk": self._on_talk,
            "vote": self._on_vote,
            "killed": self._on_killed,
            "exiled": self._on_exiled,
            "hidden": self._on_hidden,
            "revealed": self._on_revealed,
            "role": self._on_role,
            "wolves": self._on_wolves,
            "propose": self._on_propose,
            "check": self._on_check,
            "protect": self._on_protect,
        }

    def _part(self, name: str, shape: tuple[int, ...]) -> NDArray[np.int8]:
        where, skipped = self.layout.where[name], self.layout.num_private
        return self.public[where.start - skipped : where.stop - skipped].reshape(shape)

    def clear(self) -> None:
        """Forget the game before a new one."""
        self.public[:] = 0
        self.private[:] = 0
        self.alive[:] = 1
        for player in range(self.n):
            self.private[player, player] = 1

    def receive(self, event: Event) -> None:
        """Take in an event."""
        change = self.changes.get(event.kind)
        if change is not None:
            change(event)

    def vector(self, player: int) -> NDArray[np.int8]:
        """Return what a player sees, [size] int8; the array is the caller's."""
        return np.concatenate((self.private[player], self.public))

    def parts(self, player: int) -> dict[str, NDArray[np.int8]]:
        """Return the same in parts, see `Layout`."""
        vector = self.vector(player)
        return {
            name: vector[where] if shape is None else vector[where].reshape(shape) for name, where, shape in self.pieces
        }

    # ---- public events

    def _on_phase(self, event: Event) -> None:
        if event.round != self.round[0]:
            self.round[0] = event.round
            for record in (self.votes, self.speech):
                record[1:] = record[:-1].copy()
                record[0] = 0
        self.phase[:] = 0
        place = self.places.get(event.phase)
        if place is not None:
            self.phase[place] = 1
        if event.phase != "night":
            self.private[:, self.own["proposals"]] = 0

    def _on_talk(self, event: Event) -> None:
        self.speech[0, event.payload["slot"], event.actor] = self.words[event.payload["act"]]

    def _on_vote(self, event: Event) -> None:
        if len(event.visible_to) == self.n:
            row = self.votes[0, event.actor]
            target = event.payload["target"]
            row[:] = 0
            row[self.n if target is None else target] = 1

    def _gone(self, player: int | None, column: int) -> None:
        if player is not None:
            self.alive[player] = 0
            self.deaths[player, column] = 1

    def _on_killed(self, event: Event) -> None:
        self._gone(event.payload["player"], 0)

    def _on_exiled(self, event: Event) -> None:
        self._gone(event.payload["player"], 1)

    def _on_hidden(self, event: Event) -> None:
        self.alive[event.payload["player"]] = 0

    def _on_revealed(self, event: Event) -> None:
        self.known[:, event.payload["player"]] = 0
        self.known[:, event.payload["player"], ROLES.index(event.payload["role"])] = 1

    # ---- private events

    def _on_role(self, event: Event) -> None:
        role = ROLES.index(event.payload["role"])
        for player in event.visible_to:
            self.private[player, self.own["role"].start + role] = 1
            self.known[player, player, role] = 1

    def _on_wolves(self, event: Event) -> None:
        for player in event.visible_to:
            self.known[player, event.payload["players"], WEREWOLF] = 1

    def _on_propose(self, event: Event) -> None:
        for player in event.visible_to:
            self.private[player, self.own["proposals"].start + event.payload["target"]] += 1

    def _on_check(self, event: Event) -> None:
        target: Any = event.payload["target"]
        for player in event.visible_to:
            if player == target:
                continue
            row = self.known[player, target]
            row[:] = _NOT_A_WEREWOLF
            if event.payload["is_werewolf"]:
                row[:] = 1 - _NOT_A_WEREWOLF

    def _on_protect(self, event: Event) -> None:
        for player in event.visible_to:
            self.private[player, self.own["protected"]] = 0
            self.private[player, self.own["protected"].start + event.payload["target"]] = 1


def _words(n: int) -> NDArray[np.int8]:
    """Return the code of each talk act, [K, 4 + n]."""
    table = np.zeros((3 * n + 1, 4 + n), np.int8)
    for act in range(3 * n + 1):
        table[act, act // n] = 1
        if act < 3 * n:
            table[act, 4 + act % n] = 1
    return table
