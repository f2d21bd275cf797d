"""What players of games on tensors may do and see."""

from __future__ import annotations

import torch
from torch import Tensor

from .config import BID, BIDS, DOCTOR, LAST_WORDS, NIGHT, SEER, TALK, VOTE, WEREWOLF
from .dynamics import Dynamics
from .layout import Layout
from .state import WerewolfState


class Views:
    """Masks and observations of V players of each game."""

    def __init__(self, rules: Dynamics, layout: Layout) -> None:
        self.rules, self.layout, self.n = rules, layout, rules.n
        device = rules.seats.device
        self.phases = torch.tensor(layout.phases, device=device)
        self.bids = rules.seats < BIDS
        self.passes = torch.arange(self.n + 1, dtype=torch.int8, device=device)
        self.roles = torch.arange(4, dtype=torch.int8, device=device)
        self.words = self._words(device)

    def _words(self, device: torch.device) -> Tensor:
        """Return the code of each talk act, [1 + K, 4 + n] int8; the first row, all 0, stands for none."""
        n = self.n
        table = torch.zeros((2 + 3 * n, 4 + n), dtype=torch.int8, device=device)
        for act in range(3 * n + 1):
            table[1 + act, act // n] = 1
            if act < 3 * n:
                table[1 + act, 4 + act % n] = 1
        return table

    # ---- masks

    def mask(self, state: WerewolfState, who: Tensor, acts: Tensor) -> Tensor:
        """Return the allowed actions, [N, V, A] bool; who does not act may only pass.

        Args:
            state: the games.
            who: [N, V] int64 players.
            acts: [N, V] bool, whether they act now.
        """
        config, phase = self.rules.config, state.phase[:, None]
        own = who[:, :, None] == self.rules.seats
        listed = state.listed[:, None, :]
        target = torch.where((phase == NIGHT)[:, :, None], self._night(state, who, own), listed & self._not_self(own))
        if config.saved_is_hidden:
            target = torch.where(target.any(2, keepdim=True), target, state.alive[:, None, :] & ~own)
        talks = (phase == TALK) | (phase == LAST_WORDS)
        target = target & (acts & ((phase == NIGHT) | (phase == VOTE)))[:, :, None]
        if config.has_bids:
            target = target | ((acts & (phase == BID))[:, :, None] & self.bids)
        may_pass = ~acts | talks | (phase == VOTE) if config.vote_pass else ~acts | talks
        speaks = (acts & talks)[:, :, None]
        others = listed & ~own & speaks
        return torch.cat((target, may_pass[:, :, None], others, listed & speaks, others, speaks), 2)

    def _not_self(self, own: Tensor) -> Tensor:
        return torch.ones_like(own) if self.rules.config.vote_self else ~own

    def _night(self, state: WerewolfState, who: Tensor, own: Tensor) -> Tensor:
        config = self.rules.config
        role = state.role.gather(1, who)[:, :, None]
        target = state.listed[:, None, :]
        if config.wolf_targets == "others":
            target = target & ~((role == WEREWOLF) & (state.role == WEREWOLF)[:, None, :])
        if not config.seer_self:
            target = target & ~((role == SEER) & own)
        if not config.doctor_self:
            target = target & ~((role == DOCTOR) & own)
        if not config.doctor_repeat:
            target = target & ~((role == DOCTOR) & self.rules.one_hot(state.protected)[:, None, :])
        return target.expand(own.shape)

    # ---- observations

    def observe(self, state: WerewolfState, who: Tensor) -> Tensor:
        """Return what players see, [N, V, size] int8; `who` is [N, V] int64."""
        rows, seats = who.shape
        public = self._public(state)[:, None, :].expand(rows, seats, -1)
        return torch.cat((*self._private(state, who), public), 2)

    def _private(self, state: WerewolfState, who: Tensor) -> list[Tensor]:
        own = who[:, :, None] == self.rules.seats
        role = state.role.gather(1, who)
        is_wolf = state.role == WEREWOLF
        sees_wolves = (role == WEREWOLF)[:, :, None]
        exact = own | (sees_wolves & is_wolf[:, None, :])
        if self.rules.config.reveal_role:
            exact = exact | ~state.alive[:, None, :]
        by_role = state.role[:, :, None] == self.roles
        # of whom the Seer looked at it knows the side: a werewolf, or one of the other roles
        by_side = is_wolf[:, :, None] == (self.roles == WEREWOLF)
        learned = (role == SEER)[:, :, None] & state.checked[:, None, :]
        known = torch.where(exact[..., None], by_role[:, None], learned[..., None] & by_side[:, None])
        guarded = (role == DOCTOR)[:, :, None] & self.rules.one_hot(state.protected)[:, None, :]
        return [
            own.to(torch.int8),
            (role[:, :, None] == self.roles).to(torch.int8),
            known.flatten(2).to(torch.int8),
            self._proposals(state, is_wolf)[:, None, :] * sees_wolves,
            guarded.to(torch.int8),
        ]

    def _proposals(self, state: WerewolfState, is_wolf: Tensor) -> Tensor:
        if self.rules.config.simultaneous_night:
            return torch.zeros_like(state.role)
        named = torch.where(is_wolf & (state.phase == NIGHT)[:, None], state.choice, -1)
        return (named[:, :, None] == self.rules.seats8).sum(1).to(torch.int8)

    def _public(self, state: WerewolfState) -> Tensor:
        parts = (
            state.round[:, None],
            state.phase[:, None] == self.phases,
            state.listed,
            torch.stack((state.killed, state.exiled), 2),
            state.votes[..., None] == self.passes,
            self.words[(state.talk + 1).long()],
        )
        return torch.cat([part.flatten(1).to(torch.int8) for part in parts], 1)
