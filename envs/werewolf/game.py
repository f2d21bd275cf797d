"""The rules in plain Python: one game at a time, written into an event log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polyathlon.envs import keyed
from polyathlon.envs.keyed import Key

from . import state as streams
from .actions import num_actions, speeches, talk_act
from .config import (
    BID,
    BIDS,
    DOCTOR,
    LAST_WORDS,
    NIGHT,
    OVER,
    PHASES,
    ROLES,
    SEER,
    TALK,
    VOTE,
    WEREWOLF,
    WerewolfConfig,
)
from .log import Event, GameLog
from .rules import deal_roles, resolve_night, tally, winner
from .state import NO_ONE_WON

Listener = Callable[[Event], None] | None
NAMES = (*PHASES, "over")


class Game:
    """One game, by the same rules and with the same draws as `Werewolf` on tensors.

    Attributes:
        config: the rules.
        key: the random key.
        log: what happened.
        roles: indices into `ROLES`, in seat order.
        alive, listed: who lives; who can be named.
        round, phase, turn: as in `WerewolfState`.
        phase_name: its name, "over" after the end.
        queue: who still has to act in the phase, in order.
        order: all who act in the phase, in order.
        list_bits: who is listed, as the bits of a number.
        ticks: actions played.
        winner: as in `WerewolfState`.
        rewards: what the last action gave each player.
    """

    def __init__(
        self, config: WerewolfConfig, key: Key, roles: Sequence[int] | None = None, on_event: Listener = None
    ) -> None:
        self.config, self.key, self.n = config, key, config.num_players
        self.log = GameLog(on_event)
        self.at_once = [config.is_simultaneous(phase) for phase in range(OVER + 1)]
        self.phase_name = NAMES[NIGHT]
        self.everybody = frozenset(range(self.n))
        self.roles = deal_roles(config, key) if roles is None else list(roles)
        self.wolves = frozenset(i for i, role in enumerate(self.roles) if role == WEREWOLF)
        self.alive = [True] * self.n
        self.listed = [True] * self.n
        self.list_bits = (1 << self.n) - 1
        self.speeches = speeches(self.n)
        self.round, self.turn, self.phase, self.winner, self.ticks = 1, 0, NIGHT, 0, 0
        self.protected = self.speaker = self.mentioned = -1
        self.choice = [-1] * self.n
        self.words: dict[int, str] = {}
        self.queue: list[int] = []
        self.order: list[int] = []
        self.nothing = [0.0] * self.n
        self.rewards = self.nothing
        for i, role in enumerate(self.roles):
            self._tell("role", None, {"role": ROLES[role]}, frozenset((i,)))
        self._tell("wolves", None, {"players": sorted(self.wolves)}, self.wolves)
        self._begin(NIGHT)
        if not self.queue:
            self._begin(self._first_of_day())

    def _tell(self, kind: str, actor: int | None, payload: dict[str, Any], visible_to: frozenset[int]) -> None:
        event = Event(self.round, self.phase_name, actor, kind, payload, visible_to)
        self.log.events.append(event)
        if self.log.on_add is not None:
            self.log.on_add(event)

    # ---- whose turn it is

    @property
    def is_over(self) -> bool:
        """The game has ended."""
        return self.phase == OVER

    def acting(self) -> list[int]:
        """Return who acts now: all who are left where the phase is simultaneous, else the next one."""
        return self.queue if self.at_once[self.phase] else self.queue[:1]

    def _first_of_day(self) -> int:
        return BID if self.config.has_bids else TALK if self.config.talk_turns else VOTE

    def _begin(self, phase: int, actors: list[int] | None = None) -> None:
        self.phase, self.phase_name = phase, NAMES[phase]
        self.choice = [-1] * self.n
        self.queue = self._actors(phase) if actors is None else actors
        self.order = list(self.queue)
        if self.queue or phase == OVER:
            self._tell("phase", None, {}, self.everybody)

    def _actors(self, phase: int) -> list[int]:
        living = [i for i in range(self.n) if self.alive[i]]
        if phase == NIGHT:
            return self._night_actors(living)
        if phase == TALK:
            return self._speakers(living)
        if phase == VOTE and self.config.vote_order == "random":
            return self._drawn_order(living, streams.VOTE_ORDER)
        if phase == BID:
            return [i for i in living if i != self.speaker]
        return living if phase == VOTE else []

    def _drawn_order(self, players: list[int], stream: int) -> list[int]:
        return sorted(players, key=keyed.ranks(self.key, self.round, self.n, stream).__getitem__)

    def _speakers(self, living: list[int]) -> list[int]:
        order = self.config.speak_order
        if order == "rotating":
            start = (self.round - 1) % self.n
            return [i for i in living if i >= start] + [i for i in living if i < start]
        if order == "random":
            return self._drawn_order(living, streams.TALK_ORDER)
        return [self.speaker] if order == "bid" else living

    def _night_actors(self, living: list[int]) -> list[int]:
        config, roles = self.config, self.roles
        by_role: dict[str, list[int]] = {name: [] for name in ROLES}
        for i in living:
            by_role[ROLES[roles[i]]].append(i)
        wolves = by_role["werewolf"]
        if config.wolf_consensus == "first":
            wolves = wolves[:1]
        elif config.wolf_consensus == "one_random":
            wolves = [keyed.choice(self.key, self.round, wolves, streams.WOLF_PICK)]
        if config.wolf_order == "random":
            wolves = self._drawn_order(wolves, streams.WOLF_ORDER)
        by_role["werewolf"] = wolves
        if self.round == 1 and not config.first_night_kill:
            by_role["werewolf"] = by_role["doctor"] = []
        return [i for name in config.night_order for i in by_role[name]]

    # ---- what is allowed

    def legal(self, player: int) -> list[int]:
        """Return the allowed actions of a player, in order; who does not act may only pass."""
        n, phase, config = self.n, self.phase, self.config
        if player not in self.acting():
            return [n]
        listed = [i for i in range(n) if self.listed[i]]
        if phase == BID:
            return list(range(min(BIDS, n)))
        others = [i for i in listed if i != player]
        if phase in (TALK, LAST_WORDS):
            start = n + 1
            acts = [start + i for i in others] + [start + n + i for i in listed] + [start + 2 * n + i for i in others]
            return [n, *acts, num_actions(n) - 1]
        if phase == VOTE:
            allowed = listed if config.vote_self else others
        else:
            allowed = self._night_targets(player, listed)
        if not allowed and config.saved_is_hidden:
            allowed = [i for i in range(n) if self.alive[i] and i != player]
        return [*allowed, n] if phase == VOTE and config.vote_pass else allowed

    def _night_targets(self, player: int, listed: list[int]) -> list[int]:
        config, role = self.config, self.roles[player]
        if role == WEREWOLF and config.wolf_targets == "others":
            return [i for i in listed if i not in self.wolves]
        if (role == SEER and not config.seer_self) or (role == DOCTOR and not config.doctor_self):
            listed = [i for i in listed if i != player]
        if role == DOCTOR and not config.doctor_repeat:
            listed = [i for i in listed if i != self.protected]
        return listed

    def replacement(self, player: int) -> int:
        """Return what is played where a player gave no allowed action: pass, else one drawn from the game's key."""
        legal = self.legal(player)
        return self.n if self.n in legal else keyed.choice(self.key, self.ticks, legal, streams.REPLACE)

    # ---- a step

    def act(self, player: int, action: int, text: str | None = None) -> None:
        """Play an allowed action of one of those who act.

        Args:
            player: who.
            action: see `actions`.
            text: the words of a speech, ready to be shown; None for those of the talk act.
        """
        self.ticks += 1
        self.rewards = self.nothing
        self._take(player, action, text)
        if not self.queue:
            self._end_phase()

    def act_all(self, chosen: dict[int, int], texts: dict[int, str] | None = None) -> None:
        """Play the actions of all who act in this phase at once; see `act`."""
        self.ticks += 1
        self.rewards = self.nothing
        for player in list(self.acting()):
            self._take(player, chosen[player], None if texts is None else texts.get(player))
        if not self.queue:
            self._end_phase()

    def _take(self, player: int, action: int, text: str | None) -> None:
        self.queue.remove(player)
        self.choice[player] = action
        phase, config = self.phase, self.config
        if phase == NIGHT:
            self._at_night(player, action)
        elif phase == VOTE:
            if not config.simultaneous_vote:
                self._show_vote(player)
        elif phase == BID:
            self._tell("bid", player, {"bid": action}, frozenset((player,)))
        else:
            if text is not None:
                self.words[player] = text
            if phase == LAST_WORDS or not config.simultaneous_talk:
                self._speak(player)

    def _at_night(self, player: int, target: int) -> None:
        role = self.roles[player]
        if role == WEREWOLF:
            if not self.config.simultaneous_night:
                self._tell("propose", player, {"target": target}, self.wolves)
        elif role == SEER:
            found = {"target": target, "is_werewolf": target in self.wolves}
            self._tell("check", player, found, frozenset((player,)))
        else:
            self.protected = target
            self._tell("protect", player, {"target": target}, frozenset((player,)))

    def _speak(self, player: int) -> None:
        act = talk_act(self.choice[player], self.n)
        slot = self.config.num_slots - 1 if self.phase == LAST_WORDS else self.turn
        text = self.words.pop(player, None)
        said = {"act": act, "text": self.speeches[act] if text is None else text, "slot": slot}
        self._tell("talk", player, said, self.everybody)
        self.mentioned = act % self.n if act < 3 * self.n else -1

    def _show_vote(self, player: int) -> None:
        target: int | None = self.choice[player]
        visible = self.everybody if self.config.reveal_votes else frozenset((player,))
        self._tell("vote", player, {"target": None if target == self.n else target}, visible)

    def _end_phase(self) -> None:
        phase, config = self.phase, self.config
        if phase == NIGHT:
            self._end_night()
        elif phase == VOTE:
            self._end_vote()
        elif phase == BID:
            self.speaker = self._highest_bidder()
            self._tell("speaker", None, {"player": self.speaker}, self.everybody)
            self._begin(TALK)
        elif phase == LAST_WORDS:
            self._new_round()
        else:
            if config.simultaneous_talk:
                for player in self.order:
                    self._speak(player)
            is_last = self.turn + 1 >= config.talk_turns
            if is_last or config.synthetic_votes:
                self._begin(VOTE)
            else:
                self.turn += 1
                self._begin(BID if config.has_bids else TALK)

    def _new_round(self) -> None:
        self.round, self.turn = self.round + 1, 0
        self.speaker = self.mentioned = -1
        self._begin(NIGHT)

    def _highest_bidder(self) -> int:
        top = max(self.choice[i] for i in self.order)
        tied = [i for i in self.order if self.choice[i] == top]
        weighted = [i for i in tied for _ in range(2 if i == self.mentioned else 1)]
        step = self.round * streams.BIDS_A_ROUND + self.turn
        return keyed.choice(self.key, step, weighted, streams.BID_TIE)

    def _victim(self) -> int | None:
        """Return whom the werewolves agreed on."""
        config = self.config
        named = [self.choice[i] for i in self.order if i in self.wolves]
        if not named or (config.kill_needs_helper and not self._has_helper()):
            return None
        top = max(named.count(target) for target in named)
        tied = [target for target in named if named.count(target) == top]
        if config.wolf_consensus == "plurality_random":
            return keyed.choice(self.key, self.round, sorted(set(tied)), streams.WOLF_TIE)
        return tied[-1]

    def _has_helper(self) -> bool:
        return any(self.alive[i] and self.roles[i] in (SEER, DOCTOR) for i in range(self.n))

    def _end_night(self) -> None:
        if self.config.simultaneous_night:
            for player in self.order:
                if player in self.wolves:
                    self._tell("propose", player, {"target": self.choice[player]}, self.wolves)
        kill = self._victim()
        guarded = [self.choice[i] for i in self.order if self.roles[i] == DOCTOR]
        dead = resolve_night(kill, guarded[0] if guarded else None)
        self._tell("killed", None, {"player": dead}, self.everybody)
        if dead is not None:
            self._die(dead)
        elif kill is not None and self.config.saved_is_hidden:
            self._unlist(kill)
            self._tell("hidden", None, {"player": kill}, self.everybody)
        if not self._finish():
            self._begin(self._first_of_day())

    def _die(self, player: int) -> None:
        self.alive[player] = False
        self._unlist(player)
        if self.config.reveal_role:
            self._tell("revealed", None, {"player": player, "role": ROLES[self.roles[player]]}, self.everybody)

    def _unlist(self, player: int) -> None:
        self.listed[player] = False
        self.list_bits &= ~(1 << player)

    def _end_vote(self) -> None:
        config = self.config
        counts = self.turn + 1 >= config.talk_turns or not config.synthetic_votes
        if config.simultaneous_vote and (counts or not config.reveal_votes):
            for player in self.order:
                self._show_vote(player)
        if not counts:
            self.turn += 1
            self._begin(BID)
            return
        out = tally(self.choice, self.alive, config.vote_rule, config.vote_tie, self.key, self.round)
        self._shape(out)
        self._tell("exiled", None, {"player": out}, self.everybody)
        if out is not None:
            self._die(out)
        if self._finish(is_round_over=True):
            return
        if out is not None and config.last_words:
            self._begin(LAST_WORDS, [out])
        else:
            self._new_round()

    def _shape(self, out: int | None) -> None:
        config = self.config
        if not config.vote_reward and not config.survive_reward:
            return
        self.rewards = list(self.nothing)
        for i in self.order:
            target = self.choice[i]
            if i not in self.wolves and target < self.n:
                self.rewards[i] += config.vote_reward if target in self.wolves else -config.vote_reward
            if i != out:
                self.rewards[i] += config.survive_reward

    def _finish(self, is_round_over: bool = False) -> bool:
        side = winner(self.roles, self.alive)
        if side is not None:
            self.winner = 1 if side == "village" else 2
        elif is_round_over and self.round >= self.config.max_rounds:
            self.winner = NO_ONE_WON
        if not self.winner:
            return False
        if self.winner != NO_ONE_WON:
            wolves_get = 1.0 if self.winner == 2 else -1.0
            signs = [wolves_get if i in self.wolves else -wolves_get for i in range(self.n)]
            self.rewards = [had + sign for had, sign in zip(self.rewards, signs)]
        self._tell("win", None, {"winner": side}, self.everybody)
        self._begin(OVER, [])
        return True
