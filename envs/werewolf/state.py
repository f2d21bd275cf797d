"""A batch of games on tensors, and the names of the draws that both forms of the rules make."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

# every draw of the game is keyed by its round (a bid also by the number of the speech) and by its use
DEAL, WOLF_ORDER, WOLF_PICK, WOLF_TIE, TALK_ORDER, VOTE_ORDER, VOTE_TIE, BID_TIE, REPLACE = range(9)
BIDS_A_ROUND = 64
NO_ONE_WON = 3


class WerewolfState(NamedTuple):
    """A batch of games; -1 stands for nobody and nothing.

    Attributes:
        key: [N, 2] int64.
        t: [N] int64 steps since the start.
        role: [N, n] int8, index into `ROLES`.
        alive: [N, n] bool.
        listed: [N, n] bool, who can be named.
        killed: [N, n] bool, killed at night.
        exiled: [N, n] bool, voted out.
        checked: [N, n] bool, whose side the Seer learned.
        protected: [N] int64, whom the Doctor protected last.
        round: [N] int64, from 1.
        phase: [N] int64, index into `PHASES`; `OVER` after the end.
        turn: [N] int64, how many rounds of talk (with bids: speeches) the day has had.
        waiting: [N, n] bool, who has still to act in the phase.
        rank: [N, n] int8, in which order they do.
        choice: [N, n] int8, what they chose in the phase.
        speaker: [N] int64, with bids: who speaks or spoke last today.
        mentioned: [N] int64, with bids: whom the last speech was about.
        votes: [N, R, n] int8, of the last R rounds, this one first: whom each named in public, n for pass.
        talk: [N, R, S, n] int8, likewise what each said, by the number of the talk act.
        winner: [N] int64, 0 nobody yet, 1 the village, 2 the werewolves, 3 nobody within the rounds allowed.
    """

    key: Tensor
    t: Tensor
    role: Tensor
    alive: Tensor
    listed: Tensor
    killed: Tensor
    exiled: Tensor
    checked: Tensor
    protected: Tensor
    round: Tensor
    phase: Tensor
    turn: Tensor
    waiting: Tensor
    rank: Tensor
    choice: Tensor
    speaker: Tensor
    mentioned: Tensor
    votes: Tensor
    talk: Tensor
    winner: Tensor
