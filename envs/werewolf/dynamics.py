"""The rules on tensors: dealing, whose turn it is, nights, talk and votes of all games at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from polyathlon.envs.random import bits, choice, shift

from .config import BID, DOCTOR, LAST_WORDS, NIGHT, OVER, SEER, TALK, VILLAGER, VOTE, WEREWOLF, WerewolfConfig
from .state import (
    BID_TIE,
    BIDS_A_ROUND,
    DEAL,
    NO_ONE_WON,
    TALK_ORDER,
    VOTE_ORDER,
    VOTE_TIE,
    WOLF_ORDER,
    WOLF_PICK,
    WOLF_TIE,
    WerewolfState,
)


class _Resolved(NamedTuple):
    """What the end of a night or a vote brought; every field is False in rows where no phase ended."""

    night: Tensor  # [N] bool, a night ended
    vote: Tensor  # [N] bool, a vote that counts ended
    killed: Tensor  # [N, n] bool
    exiled: Tensor  # [N, n] bool
    saved: Tensor  # [N, n] bool


def permutation(keys: Tensor, step: Tensor | int, count: int, stream: int) -> Tensor:
    """Draw a permutation of each row, [N, count] int64: the rank of each of `count` drawn numbers."""
    drawn = bits(keys, step, (count,), stream)
    return (drawn[:, :, None] > drawn[:, None, :]).sum(-1)


def count(rows: Tensor) -> Tensor:
    """Count the True entries of each row, [N, n] bool, as [N] int8: a sum of bools would be computed in int64."""
    return rows.to(torch.int8).sum(1, dtype=torch.int8)


class Dynamics:
    """The rules of one configuration as pure functions on states."""

    def __init__(self, config: WerewolfConfig, history: int, device: torch.device) -> None:
        n = config.num_players
        self.config, self.history, self.n = config, history, n
        self.seats = torch.arange(n, device=device)
        self.seats8 = self.seats.to(torch.int8)
        self.roles = torch.tensor(config.role_numbers, dtype=torch.int8, device=device)
        places = [3, *(config.night_order.index(name) for name in ("werewolf", "seer", "doctor"))]
        self.night_places = torch.tensor([n * place for place in places], dtype=torch.int8, device=device)
        self.slots = torch.arange(config.num_slots, device=device)
        # rotated[k]: the order in which all speak when the one in seat k begins
        self.rotated = ((self.seats - self.seats[:, None]) % n).to(torch.int8)
        self.first_phase = self._first_phase()

    def _first_phase(self) -> int:
        """Return the phase a game starts with: a night in which nobody acts is left out."""
        if self.config.first_night_kill or SEER in self.config.role_numbers:
            return NIGHT
        return self.first_of_day()

    def first_of_day(self) -> int:
        """Return the phase with which a day starts."""
        return BID if self.config.has_bids else TALK if self.config.talk_turns else VOTE

    def one_hot(self, player: Tensor) -> Tensor:
        """Return [N, n] bool, True at `player`, [N]."""
        return player[:, None] == self.seats

    def across(self, rows: Tensor) -> Tensor:
        """Copy [N] into every column, [N, n]: broadcasting along rows this short would take several times as long."""
        return rows[:, None].expand(-1, self.n).contiguous()

    # ---- starts

    def deal(self, keys: Tensor, roles: Tensor | None = None) -> WerewolfState:
        """Start a game for each key; `roles`, [N, n] int8, are dealt uniformly where not given."""
        rows, n, device = keys.shape[0], self.n, keys.device
        if roles is None:
            roles = self.roles[permutation(keys, 0, n, DEAL)]
        zero = torch.zeros(rows, dtype=torch.int64, device=device)
        alive = torch.ones((rows, n), dtype=torch.bool, device=device)
        nobody = torch.full_like(zero, -1)
        none = torch.zeros_like(alive)
        history = (rows, self.history)
        phase = zero + self.first_phase
        waiting, rank = self._turns(keys, roles, alive, phase, zero + 1, nobody, none)
        return WerewolfState(
            key=keys,
            t=zero,
            role=roles,
            alive=alive,
            listed=alive.clone(),
            killed=none,
            exiled=none.clone(),
            checked=none.clone(),
            protected=nobody,
            round=zero + 1,
            phase=phase,
            turn=zero.clone(),
            waiting=waiting,
            rank=rank,
            choice=torch.full((rows, n), -1, dtype=torch.int8, device=device),
            speaker=nobody.clone(),
            mentioned=nobody.clone(),
            votes=torch.full((*history, n), -1, dtype=torch.int8, device=device),
            talk=torch.full((*history, self.config.num_slots, n), -1, dtype=torch.int8, device=device),
            winner=zero.clone(),
        )

    # ---- whose turn it is

    def _turns(
        self, key: Tensor, role: Tensor, alive: Tensor, phase: Tensor, number: Tensor, speaker: Tensor, out: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return who acts in a phase that starts, [N, n] bool, and in which order, [N, n] int8."""
        is_night = self.across(phase == NIGHT)
        waiting = torch.where(is_night, self._night_actors(key, role, alive, number), alive)
        if self.config.has_bids:
            is_speaker = self.one_hot(speaker)
            waiting = torch.where((phase == BID)[:, None], waiting & ~is_speaker, waiting)
            waiting = torch.where((phase == TALK)[:, None], is_speaker, waiting)
        if self.config.last_words:
            waiting = torch.where((phase == LAST_WORDS)[:, None], out, waiting)
        waiting = waiting & self.across(phase != OVER)
        return waiting, self._order(key, role, phase, number, is_night)

    def _night_actors(self, key: Tensor, role: Tensor, alive: Tensor, number: Tensor) -> Tensor:
        config = self.config
        if config.first_night_kill and config.wolf_consensus.startswith("plurality"):
            return alive & (role != VILLAGER)
        wolves = alive & (role == WEREWOLF)
        if config.wolf_consensus == "first":
            wolves = wolves & (wolves.cumsum(1) == 1)
        elif config.wolf_consensus == "one_random":
            wolves = wolves & self.one_hot(choice(key, number, wolves, WOLF_PICK))
        seer, doctor = role == SEER, role == DOCTOR
        if not config.first_night_kill:
            later = (number > 1)[:, None]
            wolves, doctor = wolves & later, doctor & later
        return wolves | (alive & (seer | doctor))

    def _order(self, key: Tensor, role: Tensor, phase: Tensor, number: Tensor, is_night: Tensor) -> Tensor:
        config, n = self.config, self.n
        seat = self.seats8[None, :].expand(role.shape[0], n)
        speech = seat
        if config.speak_order == "rotating":
            speech = self.rotated.index_select(0, (number - 1) % n)
        elif config.speak_order == "random":
            speech = permutation(key, number, n, TALK_ORDER).to(torch.int8)
        vote = seat
        if config.vote_order == "random":
            vote = permutation(key, number, n, VOTE_ORDER).to(torch.int8)
        wolf = seat
        if config.wolf_order == "random":
            wolf = permutation(key, number, n, WOLF_ORDER).to(torch.int8)
        night = self.night_places[role.long()] + wolf
        order = torch.where(is_night, night, speech)
        return order if vote is speech else torch.where(self.across(phase == VOTE), vote, order)

    def mover(self, state: WerewolfState) -> Tensor:
        """Return who is asked next, [N] int64: the first of those who still have to act."""
        return torch.where(state.waiting, state.rank, 127).argmin(1)

    # ---- a step

    def advance(self, state: WerewolfState, acted: Tensor, chosen: Tensor) -> tuple[WerewolfState, Tensor, Tensor]:
        """Let those who `acted`, [N, n] bool, do what they have `chosen`, [N, n] int8.

        Returns:
            The state after, the rewards [N, n] float32 and terminated [N] bool.
        """
        picked = torch.where(acted, chosen, state.choice)
        waiting = state.waiting & ~acted
        done = ~waiting.any(1)
        resolved, reward = self._resolve(state, picked, done)
        talk, speech = self._record_talk(state, acted, picked, done)
        votes = self._record_votes(state, acted, picked, resolved.vote)
        alive = state.alive & ~(resolved.killed | resolved.exiled)
        winner = self._winner(state, alive, resolved)
        reward = reward + self._final_reward(state.role, winner)
        after = self._next_phase(state, picked, waiting, done, resolved, alive, winner, speech)
        is_new = after.round != state.round
        is_seer, is_doctor = state.role == SEER, state.role == DOCTOR
        is_night = state.phase == NIGHT
        seen = torch.where(is_seer, picked, -1).amax(1)
        guarded = torch.where(is_doctor, picked, -1).amax(1).long()
        after = after._replace(
            killed=state.killed | resolved.killed,
            exiled=state.exiled | resolved.exiled,
            checked=state.checked | ((seen[:, None] == self.seats8) & self.across(is_night)),
            protected=torch.where(is_night & (guarded >= 0), guarded, state.protected),
            votes=self._rolled(votes, is_new[:, None, None]),
            talk=self._rolled(talk, is_new[:, None, None, None]),
        )
        return after, reward, winner > 0

    def _rolled(self, record: Tensor, is_new: Tensor) -> Tensor:
        """Make room for a new round in the records of games in which one starts."""
        fresh = torch.full_like(record[:, :1], -1)
        return torch.where(is_new.expand_as(record).contiguous(), torch.cat((fresh, record[:, :-1]), 1), record)

    def _record_talk(self, state: WerewolfState, acted: Tensor, picked: Tensor, done: Tensor) -> tuple[Tensor, Tensor]:
        """Write down what was said; also return the talk acts, [N, n] int8."""
        n, config = self.n, self.config
        act = torch.where(picked == n, 3 * n, picked - (n + 1)).to(torch.int8)
        is_talk, slot = state.phase == TALK, state.turn
        if config.last_words:
            is_last = state.phase == LAST_WORDS
            is_talk, slot = is_talk | is_last, torch.where(is_last, config.num_slots - 1, slot)
        is_heard = (
            (picked >= 0) & self.across(done & is_talk) if config.simultaneous_talk else acted & self.across(is_talk)
        )
        here = is_heard[:, None, :] & (slot[:, None] == self.slots)[:, :, None]
        now = torch.where(here, act[:, None, :], state.talk[:, 0])
        return torch.cat((now[:, None], state.talk[:, 1:]), 1), act

    def _record_votes(self, state: WerewolfState, acted: Tensor, picked: Tensor, counted: Tensor) -> Tensor:
        if not self.config.reveal_votes:
            return state.votes
        if self.config.simultaneous_vote:
            is_shown = self.across(counted) & (picked >= 0)
        else:
            is_shown = acted & self.across(state.phase == VOTE)
        now = torch.where(is_shown, picked, state.votes[:, 0])
        return torch.cat((now[:, None], state.votes[:, 1:]), 1)

    def _is_last_turn(self, state: WerewolfState) -> Tensor:
        return state.turn + 1 >= self.config.talk_turns

    def _resolve(self, state: WerewolfState, picked: Tensor, done: Tensor) -> tuple[_Resolved, Tensor]:
        """End nights and votes in which all have acted; also return the shaping rewards, [N, n]."""
        config, is_wolf, is_vote = self.config, state.role == WEREWOLF, state.phase == VOTE
        night, vote = done & (state.phase == NIGHT), done & is_vote
        if config.synthetic_votes:
            vote = vote & self._is_last_turn(state)
        # whom werewolves propose at night, whom all name in a vote; other choices and pass are no seat
        named = torch.where(is_wolf | self.across(is_vote), picked, -1)
        counts, score = self._counts(state, named)
        top = counts.amax(1)
        tied = counts == top[:, None]
        victim = score.argmax(1)
        if config.wolf_consensus == "plurality_random":
            victim = choice(state.key, state.round, tied, WOLF_TIE)
        has_victim = night & (top > 0)
        if config.kill_needs_helper:
            helper = (state.role == SEER) | (state.role == DOCTOR)
            has_victim = has_victim & (state.alive & helper).any(1)
        target = self.one_hot(victim)
        guarded = torch.where(state.role == DOCTOR, picked, -1).amax(1)
        is_saved = victim == guarded
        killed, saved = (target & self.across(has_victim & x) for x in (~is_saved, is_saved))
        out = vote & (top > 0)
        if config.vote_tie == "random":
            chosen = choice(state.key, state.round, tied, VOTE_TIE)
        else:
            chosen, out = counts.argmax(1), out & (count(tied) == 1)
        if config.vote_rule == "majority":
            out = out & (top * 2 > count(state.alive))
        exiled = self.one_hot(chosen) & self.across(out)
        resolved = _Resolved(night, vote, killed, exiled, saved)
        return resolved, self._shaping(state, named, resolved)

    def _counts(self, state: WerewolfState, named: Tensor) -> tuple[Tensor, Tensor]:
        """Count how often each was named, [N, n] int64; and a score whose maximum is, among equals, the one named last.

        Each who names adds 2^24 + 2^(its place in the order): the sum orders by the count, then by the last place.
        """
        n = self.n
        # without a sign -1 is 255: all that is no seat falls into column n
        target = named.view(torch.uint8).clamp(max=n).long()
        weight = (1 << 24) + (1 << (state.rank % n).long())
        score = torch.zeros((named.shape[0], n + 1), dtype=torch.int64, device=named.device)
        score = score.scatter_add(1, target, weight)[:, :n]
        return score >> 24, score

    def _shaping(self, state: WerewolfState, named: Tensor, resolved: _Resolved) -> Tensor:
        reward = torch.zeros_like(state.alive, dtype=torch.float32)
        is_wolf = state.role == WEREWOLF
        if self.config.vote_reward:
            hits = named[:, :, None] == self.seats8
            right = (hits & is_wolf[:, None, :]).any(2).float() - (hits & ~is_wolf[:, None, :]).any(2).float()
            counted = resolved.vote[:, None] & ~is_wolf
            reward = reward + self.config.vote_reward * right * counted
        if self.config.survive_reward:
            living = state.alive & ~resolved.exiled & resolved.vote[:, None]
            reward = reward + self.config.survive_reward * living
        return reward

    def _winner(self, state: WerewolfState, alive: Tensor, resolved: _Resolved) -> Tensor:
        """Return who has won, [N] int64: the village without werewolves, they when as many as the others."""
        wolves = count(alive & (state.role == WEREWOLF))
        others = count(alive) - wolves
        winner = torch.where(wolves == 0, 1, torch.where(wolves >= others, 2, 0))
        winner = winner * (resolved.night | resolved.vote)
        is_late = resolved.vote & (state.round >= self.config.max_rounds) & (winner == 0)
        return torch.where(is_late, NO_ONE_WON, winner)

    def _final_reward(self, role: Tensor, winner: Tensor) -> Tensor:
        sign = self.across((winner == 1).float() - (winner == 2).float())
        return torch.where(role == WEREWOLF, -sign, sign)

    def _next_phase(
        self,
        state: WerewolfState,
        picked: Tensor,
        waiting: Tensor,
        done: Tensor,
        resolved: _Resolved,
        alive: Tensor,
        winner: Tensor,
        speech: Tensor,
    ) -> WerewolfState:
        """Go on to the next phase where all have acted."""
        config, phase = self.config, state.phase
        is_last = self._is_last_turn(state)
        to_vote = is_last if not config.synthetic_votes else torch.ones_like(is_last)
        again = BID if config.has_bids else TALK
        night_over = torch.full_like(phase, self.first_of_day())
        following = torch.where(phase == NIGHT, night_over, NIGHT)
        following = torch.where(phase == TALK, torch.where(to_vote, VOTE, again), following)
        next_turn = (phase == TALK) & ~to_vote
        speaker, mentioned = state.speaker, state.mentioned
        if config.has_bids:
            following = torch.where(phase == BID, TALK, following)
            if config.synthetic_votes:
                goes_on = (phase == VOTE) & ~is_last
                following, next_turn = torch.where(goes_on, BID, following), next_turn | goes_on
            speaker = torch.where(done & (phase == BID), self._highest_bidder(state, picked), speaker)
            said = torch.where(self.one_hot(state.speaker), speech, -1).amax(1).long()
            about = torch.where(said < 3 * self.n, said % self.n, -1)
            mentioned = torch.where(done & (phase == TALK), about, mentioned)
        if config.last_words:
            speaks = (phase == VOTE) & resolved.exiled.any(1)
            following = torch.where(speaks, LAST_WORDS, following)
        new_round = done & (following == NIGHT) & (winner == 0)
        following = torch.where(winner > 0, OVER, torch.where(done, following, phase))
        turn = torch.where(new_round, 0, state.turn + (done & next_turn))
        number = state.round + new_round
        if config.has_bids:
            speaker, mentioned = (torch.where(new_round, -1, x) for x in (speaker, mentioned))
        fresh, rank = self._turns(state.key, state.role, alive, following, number, speaker, resolved.exiled)
        is_over = self.across(done)
        return state._replace(
            t=state.t + 1,
            alive=alive,
            listed=self._listed(state, alive, resolved),
            round=number,
            phase=following,
            turn=turn,
            waiting=torch.where(is_over, fresh, waiting),
            rank=torch.where(is_over, rank, state.rank),
            choice=torch.where(is_over, -1, picked),
            speaker=speaker,
            mentioned=mentioned,
            winner=winner,
        )

    def _listed(self, state: WerewolfState, alive: Tensor, resolved: _Resolved) -> Tensor:
        """Return who can be named: the living, but under `saved_is_hidden` nobody whom the Doctor saved."""
        if not self.config.saved_is_hidden:
            return alive
        return state.listed & alive & ~resolved.saved

    def _highest_bidder(self, state: WerewolfState, picked: Tensor) -> Tensor:
        """Return who gets the word, [N]: the highest bid; among equals drawn, the one just mentioned counts twice."""
        tied = (picked == picked.amax(1, keepdim=True)) & (picked >= 0)
        weight = tied.long() * (1 + self.one_hot(state.mentioned).long())
        upto = weight.cumsum(1)
        step = state.round * BIDS_A_ROUND + state.turn
        drawn = shift(bits(state.key, step, (), BID_TIE), 1) % upto[:, -1].clamp(min=1)
        return (upto > drawn[:, None]).to(torch.int8).argmax(1)
