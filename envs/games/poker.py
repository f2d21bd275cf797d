"""Two small poker games by OpenSpiel's rules: Kuhn's and Leduc hold'em."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.envs.errors import UsageError
from polyathlon.envs.random import bits

from .boards import SmallGame

RANKS = "JQK"


class Poker(SmallGame):
    """What both games share: a deck, dealt cards, moves one after another.

    Reset option: `cards`, the numbers of the cards dealt, in order.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"], "render_fps": 1}
    deck = 0
    dealt = 0

    def deals(self) -> Tensor:
        """Return every way to deal the cards, [D, dealt] int64, all equally likely."""
        rows = [[card] for card in range(self.deck)]
        for _ in range(self.dealt - 1):
            rows = [[*row, card] for row in rows for card in range(self.deck) if card not in row]
        return torch.tensor(rows, device=self.device)

    def deal(self, keys: Tensor, options: dict[str, Any] | None) -> Tensor:
        """Deal each game's cards, [N, dealt] int64, from its key or from the option.

        Raises:
            UsageError: the cards are not different cards of the deck, or an option is unknown.
        """
        given = dict(options or {})
        cards = given.pop("cards", None)
        self.no_time(keys, given)
        if cards is None:
            return bits(keys, 0, (self.deck,)).argsort(1)[:, : self.dealt]
        row = [int(card) for card in cards]
        if len(row) != self.dealt or len(set(row)) != self.dealt or any(not 0 <= c < self.deck for c in row):
            raise UsageError(
                f"'cards' holds {self.dealt} different numbers from 0 to {self.deck - 1} in {type(self).__name__}, got {cards!r}"
            )
        return torch.tensor(row, device=self.device).expand(keys.shape[0], -1).contiguous()


class KuhnState(NamedTuple):
    """State of a game.

    Attributes:
        key: [N, 2] int64.
        t: [N] int64, moves made.
        cards: [N, 2] int64, 0 the lowest.
        moves: [N, 3] int64: 0 pass, 1 bet, -1 not made.
    """

    key: Tensor
    t: Tensor
    cards: Tensor
    moves: Tensor


class KuhnPoker(Poker):
    """Kuhn poker (Kuhn 1950) by OpenSpiel's rules: three cards, one each, antes of 1, one bet of 1.

    Action: 0 pass (or fold), 1 bet (or call). Observation: 11 numbers: who looks, one-hot (2), its card (3), the three moves (2
    each). Reward at the end: what the winner gains and the loser loses, 1 or 2. The first player's value in equilibrium is -1/18.

    Reset option: `cards`, the first player's and the second's.
    """

    deck, dealt = 3, 2

    def __init__(self, *, device: torch.device | str = "cpu", dtype: torch.dtype | str = torch.float32) -> None:
        """Make the game."""
        super().__init__(device=device, dtype=dtype)
        self.observation_space = spaces.Box(0, 1, (11,), np.int8)
        self.action_space = spaces.Discrete(2)

    def start(self, keys: Tensor, cards: Tensor) -> KuhnState:
        """Start games with given cards, [N, 2]."""
        t = torch.zeros(len(keys), dtype=torch.int64, device=keys.device)
        return KuhnState(keys, t, cards, torch.full((len(keys), 3), -1, dtype=torch.int64, device=keys.device))

    def reset(self, keys: Tensor, options: dict[str, Any] | None = None) -> KuhnState:
        """Start a game for each key, [N, 2] int64; see the class for the option."""
        return self.start(keys, self.deal(keys, options))

    def step(self, state: KuhnState, action: Tensor) -> tuple[KuhnState, Tensor, Tensor]:
        """Pass or bet, `action` [N] int64; see `TensorEnv.step`."""
        at = torch.arange(3, device=action.device) == state.t[:, None]
        moves = torch.where(at, action[:, None], state.moves)
        first, second, third = moves.unbind(1)
        is_called = ((first == 1) & (second == 1)) | ((second == 1) & (third == 1))
        is_checked = (first == 0) & (second == 0)
        first_folds, second_folds = (second == 1) & (third == 0) & (first == 0), (first == 1) & (second == 0)
        first_wins = torch.where(is_called | is_checked, state.cards[:, 0] > state.cards[:, 1], second_folds)
        stake = torch.where(is_called, 2.0, 1.0)
        ended = is_called | is_checked | first_folds | second_folds
        gain = torch.where(first_wins, stake, -stake) * ended
        return KuhnState(state.key, state.t + 1, state.cards, moves), torch.stack((gain, -gain), 1), ended

    def observe(self, state: KuhnState, player: Tensor | None = None) -> Tensor:
        """Return [N, 11] int8 as seen by `player`, [N] int64; None: the one to move."""
        who = self.player(state) if player is None else player
        card = state.cards.gather(1, who[:, None])[:, 0]
        parts = (_one_hot(who, 2), _one_hot(card, 3), _one_hot(state.moves, 2).flatten(1))
        return torch.cat(parts, 1)

    def player(self, state: KuhnState) -> Tensor:
        """Return whose turn it is, [N] int64."""
        return state.t % 2

    def render_text(self, state: KuhnState, i: int) -> str:
        """Write row i as one who sees both cards."""
        cards = " ".join(RANKS[card] for card in state.cards[i].tolist())
        return f"{cards} {''.join('pb'[move] for move in state.moves[i].tolist() if move >= 0)}".rstrip()


class LeducState(NamedTuple):
    """State of a game.

    Attributes:
        key: [N, 2] int64.
        t: [N] int64, moves made.
        cards: [N, 3] int64: the two private ones and the public one, which is hidden in the first round; rank = card // 2.
        paid: [N, 2] int64 chips in the pot.
        round: [N] int64, 0 or 1.
        turn: [N] int64, who is to move.
        raises: [N] int64, of this round.
        calls: [N] int64, since the last raise of this round.
        bets: [N, 2, 4] int64: of each round the moves: 0 call, 1 raise, -1 not made.
    """

    key: Tensor
    t: Tensor
    cards: Tensor
    paid: Tensor
    round: Tensor
    turn: Tensor
    raises: Tensor
    calls: Tensor
    bets: Tensor


class LeducPoker(Poker):
    """Leduc hold'em (Southey et al. 2005) by OpenSpiel's rules: six cards of three ranks, antes of 1, two rounds of bets.

    Each player has one card; a public card is shown before the second round. Raises are of 2 and 4 chips, at most two a round; the
    first player begins both. A pair with the public card wins, else the higher rank; equal ranks share the pot. Action: 0 fold (only
    where there is something to call), 1 call or check, 2 raise. Observation: 30 numbers: who looks, one-hot (2), its card (6), the
    public card (6; 0 while hidden), the bets (2 rounds of 4 moves: call, raise). Reward at the end: chips won or lost, up to 13.

    Reset option: `cards`, the first player's, the second's and the public one; card // 2 is the rank.
    """

    deck, dealt = 6, 3

    def __init__(self, *, device: torch.device | str = "cpu", dtype: torch.dtype | str = torch.float32) -> None:
        """Make the game."""
        super().__init__(device=device, dtype=dtype)
        self.observation_space = spaces.Box(0, 1, (30,), np.int8)
        self.action_space = spaces.Discrete(3)

    def start(self, keys: Tensor, cards: Tensor) -> LeducState:
        """Start games with given cards, [N, 3]."""
        zero = torch.zeros(len(keys), dtype=torch.int64, device=keys.device)
        paid = torch.ones((len(keys), 2), dtype=torch.int64, device=keys.device)
        bets = torch.full((len(keys), 2, 4), -1, dtype=torch.int64, device=keys.device)
        return LeducState(keys, zero, cards, paid, zero.clone(), zero.clone(), zero.clone(), zero.clone(), bets)

    def reset(self, keys: Tensor, options: dict[str, Any] | None = None) -> LeducState:
        """Start a game for each key, [N, 2] int64; see the class for the option."""
        return self.start(keys, self.deal(keys, options))

    def step(self, state: LeducState, action: Tensor) -> tuple[LeducState, Tensor, Tensor]:
        """Fold, call or raise, `action` [N] int64; see `TensorEnv.step`."""
        folds, is_raise = action == 0, action == 2
        stake = state.paid.amax(1)
        amount = stake + torch.where(is_raise, 2 + 2 * state.round, 0)
        own = torch.arange(2, device=action.device) == state.turn[:, None]
        paid = torch.where(own & ~folds[:, None], amount[:, None], state.paid)
        place = (state.bets[torch.arange(len(action), device=action.device), state.round.clamp(max=1)] >= 0).sum(1)
        rounds, places = torch.arange(2, device=action.device), torch.arange(4, device=action.device)
        here = (rounds[None, :, None] == state.round[:, None, None]) & (places == place[:, None, None])
        bets = torch.where(here & ~folds[:, None, None], is_raise.long()[:, None, None], state.bets)
        raises = state.raises + is_raise
        calls = torch.where(is_raise, 0, state.calls + 1)
        is_done = ~folds & (((raises == 0) & (calls == 2)) | ((raises > 0) & (calls == 1)))
        moves_on = is_done & (state.round == 0)
        shown = is_done & (state.round == 1)
        strength = self._strength(state.cards)
        sign = (strength[:, 0] > strength[:, 1]).float() - (strength[:, 0] < strength[:, 1]).float()
        sign = torch.where(folds, torch.where(state.turn == 0, -1.0, 1.0), sign)
        ended = folds | shown
        lost = torch.where(sign > 0, paid[:, 1], paid[:, 0]).float()
        gain = sign * lost * ended
        after = state._replace(
            t=state.t + 1,
            paid=paid,
            round=torch.where(moves_on, 1, state.round),
            turn=torch.where(moves_on, 0, 1 - state.turn),
            raises=torch.where(moves_on, 0, raises),
            calls=torch.where(moves_on, 0, calls),
            bets=bets,
        )
        return after, torch.stack((gain, -gain), 1), ended

    def _strength(self, cards: Tensor) -> Tensor:
        """Return the strength of both hands, [N, 2]: the rank, and more than every rank with a pair."""
        rank = cards // 2
        return rank[:, :2] + 10 * (rank[:, :2] == rank[:, 2:])

    def observe(self, state: LeducState, player: Tensor | None = None) -> Tensor:
        """Return [N, 30] int8 as seen by `player`, [N] int64; None: the one to move."""
        who = state.turn if player is None else player
        card = state.cards.gather(1, who[:, None])[:, 0]
        public = torch.where(state.round > 0, state.cards[:, 2], -1)
        parts = (_one_hot(who, 2), _one_hot(card, 6), _one_hot(public, 6), _one_hot(state.bets, 2).flatten(1))
        return torch.cat(parts, 1)

    def mask(self, state: LeducState, player: Tensor | None = None) -> Tensor:
        """Return [N, 3] bool."""
        owes = state.paid.gather(1, state.turn[:, None])[:, 0] < state.paid.amax(1)
        return torch.stack((owes, torch.ones_like(owes), state.raises < 2), 1)

    def player(self, state: LeducState) -> Tensor:
        """Return whose turn it is, [N] int64."""
        return state.turn.clone()

    def render_text(self, state: LeducState, i: int) -> str:
        """Write row i as one who sees all cards."""
        names = [RANKS[card // 2] for card in state.cards[i].tolist()]
        public = names[2] if int(state.round[i]) else "?"
        bets = ["".join("cr"[move] for move in row if move >= 0) for row in state.bets[i].tolist()]
        return f"{names[0]} {names[1]} public {public}; bets {' / '.join(bets)}; pot {'+'.join(map(str, state.paid[i].tolist()))}"


def _one_hot(number: Tensor, size: int) -> Tensor:
    """Return int8 one-hot codes, all 0 for negative numbers."""
    return (number[..., None] == torch.arange(size, device=number.device)).to(torch.int8)
