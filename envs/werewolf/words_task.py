"""One seat of Werewolf as a language task: the other seats act inside, all rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskId, TaskReply, Verdict
from polyathlon.envs.language.task import unreadable
from polyathlon.envs.random import integers, make_keys
from polyathlon.envs.tensor.opponents import Guarded, PlayerFault, check_seat, make_opponent
from polyathlon.envs.tensor.seats import SEAT

from . import words
from .core import Werewolf
from .speakers import GuardedSpeaker
from .state import NO_ONE_WON
from .table import Table, make_table

VIEWS = ("full", "brief")
BRIEF = 160  # characters of news in the brief view


class WerewolfWords(LanguageTask):
    """One seat of Werewolf, in words.

    Description:
        The first text has the rules, what the seat knows, what has happened and the question; later ones only what is new since the
        seat's last answer. Between two answers the other seats act, those of all rows of a batch together.
    Action space:
        `Utterance`: whom to name, as "[player_3]", or "[pass]"; in a discussion any words, which all others read in a quoting frame.
    Observation space:
        `Utterance`: lines of the moderator and quoted speeches.
    Rewards:
        1 when the seat's side wins, -1 when it loses, 0 before and where the rounds run out; an answer that names no choice is asked
        for once more, then another choice is played and the rules' `illegal_reward` is paid.
    Starting state:
        The game of an id (seed, episode), the same as in `polyathlon.envs.werewolf.env`; the seat is drawn from its key, or given.
        A game in which the seat dies before it is asked is followed by the next one of (seed, episode + 2^32 k).
    Episode end:
        The game is over. A dead seat is not asked any more; its game is played to its end.

    Args:
        opponent: who plays the other seats: "random", "heuristic", the folder of an agent, a callable on numbers
            `(obs, mask, player, env_index, key) -> action`, or an object with
            `answer(texts, keys [n, 2], games) -> texts`, which is asked in words; `games` numbers the game of each text.
        seat: "random" or a number.
        view: "full", or "brief" for the context of small models: no rules, one's role, and the newest lines alone.
        max_answer: the longest answer that is read, in characters.
        render_mode: "ansi" or None.
        time_limit: seconds that an answer of the other seats may take; None for no limit. What they do wrong is named in `faults`.
        **options: `num_players`, `config`, `quirks`, `history` of `polyathlon.envs.werewolf.env`.

    Raises:
        UsageError: an argument is outside what is allowed.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"]}  # type: ignore[misc]
    num_players = 1  # the others are played inside

    def __init__(
        self,
        opponent: Any = "random",
        seat: str | int = "random",
        *,
        num_players: int | None = None,
        config: Any = None,
        quirks: bool = False,
        history: int = 3,
        view: str = "full",
        max_answer: int = 2048,
        render_mode: str | None = None,
        time_limit: float | None = None,
    ) -> None:
        super().__init__(max_answer=max_answer, max_bytes=1 << 16)
        if render_mode not in (None, "ansi"):
            raise unknown_name("render_mode", str(render_mode), ("ansi",))
        if view not in VIEWS:
            raise unknown_name("view", str(view), VIEWS)
        self.render_mode, self.view = render_mode, view
        self._words = {"num_players": num_players, "config": config, "quirks": quirks, "history": history}
        self.task = Werewolf(num_players=num_players, config=config, quirks=quirks, history=history)
        self.seat = check_seat(self.task, seat)
        self._queue: list[_Seat] = []
        self.speaks = hasattr(opponent, "answer")
        self.opponent = opponent
        if self.speaks and getattr(opponent, "is_guarded", True):
            self.opponent = GuardedSpeaker(opponent, time_limit)
        elif not self.speaks:
            name = opponent if isinstance(opponent, str) else getattr(opponent, "__name__", "opponent")
            self.opponent = Guarded(self.task, make_opponent(self.task, opponent), str(name), time_limit)

    @property
    def faults(self) -> list[PlayerFault]:
        """What the player of the other seats did wrong, in order."""
        found: list[PlayerFault] = getattr(self.opponent, "faults", [])
        return found

    # ---- starts

    def draw(self, rng: np.random.Generator) -> TaskId:
        """Return (seed, episode), which `task_seed` made the generator of."""
        entropy: Any = rng.bit_generator.seed_seq.entropy  # type: ignore[attr-defined]
        return tuple(int(x) for x in entropy)

    def prepare_starts(self, task_ids: Sequence[TaskId]) -> None:
        """Deal the games of a batch and let the others play until each seat is asked."""
        ready = [self._dealt(task_id) for task_id in task_ids]
        self._play_on(ready)
        self._queue = ready

    def begin(self, task_id: TaskId) -> TaskEpisode:
        """Start the game of an id (seed, episode).

        Raises:
            UsageError: the id is not a pair of integers >= 0.
        """
        queue = self._queue
        if queue and queue[0].task_id == tuple(task_id):  # type: ignore[arg-type]
            seat = queue.pop(0)
        else:
            seat = self._dealt(task_id)
            self._play_on([seat])
        return TaskEpisode(seat.task_id, seat.text(), seat)

    def _dealt(self, task_id: TaskId) -> _Seat:
        try:
            seed, episode = (int(x) for x in task_id)  # type: ignore[attr-defined]
        except (TypeError, ValueError) as error:
            raise UsageError(f"the id of a game is (seed, episode), two integers; got {task_id!r}") from error
        if seed < 0 or episode < 0:
            raise UsageError(f"the id of a game is (seed, episode), integers >= 0; got {task_id!r}")
        table = make_table(**self._words, text=True, action="text", observation=None, dead_wait=True, render_mode=None)
        return _Seat((seed, episode), table, self.seat, self.view == "brief")

    # ---- the others

    def _play_on(self, seats: Sequence[_Seat]) -> None:
        """Let the other seats act in all these games until the own one is asked or the game is over."""
        running = list(seats)
        for _ in range(100_000):
            for seat in running:
                seat.replay_if_unasked()
            running = [seat for seat in running if seat.waits_for_others]
            if not running:
                return
            for seat, answer in zip(running, self._answers(running), strict=True):
                seat.play_other(answer)

    def _answers(self, seats: Sequence[_Seat]) -> list[Any]:
        """Return what the player who is asked in each game does: a number, or words."""
        keys = make_keys(
            torch.tensor([seat.draw_seed for seat in seats]), torch.tensor([seat.asked_number for seat in seats])
        )
        players = torch.tensor([seat.asked for seat in seats])
        if self.speaks:
            games = [seat.draw_seed % (1 << 62) for seat in seats]
            return list(self.opponent.answer([seat.view(seat.asked) for seat in seats], keys, games))
        obs = torch.from_numpy(np.stack([seat.table.observer.vector(seat.asked) for seat in seats]))
        mask = torch.from_numpy(np.stack([seat.table.choices(seat.asked).mask for seat in seats])).bool()
        index = torch.arange(len(seats))
        return [int(a) for a in self.opponent(obs, mask, players, index, keys)]

    # ---- turns

    def prepare(self, answers: Sequence[tuple[TaskEpisode, str]]) -> None:
        """Play several answers, and let the others act in all these games together."""
        played = []
        for episode, text in answers:
            if not episode.over and isinstance(text, str) and unreadable(text, self.max_answer) is None:
                episode.data.play_own(text)
                played.append(episode.data)
        self._play_on(played)

    def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
        """Play an answer."""
        seat: _Seat = episode.data
        if not seat.has_played:
            seat.play_own(text)
            self._play_on([seat])
        return self._reply(seat)

    def refuse(self, episode: TaskEpisode, reason: str) -> TaskReply:
        """Play another choice for an answer that cannot be read."""
        seat: _Seat = episode.data
        seat.play_replaced(reason)
        self._play_on([seat])
        return self._reply(seat)

    def _reply(self, seat: _Seat) -> TaskReply:
        reward, is_invalid, reason = seat.pop_outcome()
        over, score = seat.is_over, (seat.total + 1) / 2 if seat.is_over else 0.0
        won = over and seat.total > 0
        verdict = Verdict(won, min(max(score, 0.0), 1.0), is_invalid, reason, {"reward": reward})
        return TaskReply("" if over else seat.news(), reward, over, verdict)

    def render(self) -> Any:
        """Write the game so far, secrets included; None without a render mode.

        Raises:
            UsageError: there was no reset.
        """
        if self.render_mode is None:
            return None
        if self._row is None or self._row.episode is None:
            raise UsageError("render() was called before reset(); call reset() first")
        return words.transcript(self._row.episode.data.table.playing().log.events)


class _Seat:
    """One game at a table, seen from one seat."""

    def __init__(self, task_id: tuple[int, int], table: Table, seat: str | int, is_brief: bool) -> None:
        self.task_id, self.table, self._chosen, self.is_brief = task_id, table, seat, is_brief
        self.attempt = 0
        self._deal()

    def _deal(self) -> None:
        seed, episode = self.task_id
        key = torch.tensor([self.table.deal(seed, episode + (self.attempt << 32))])
        drawn = int(integers(key, 0, 0, self.table.n, (), SEAT)[0])
        self.number = drawn if self._chosen == "random" else int(self._chosen)
        self.draw_seed = int(key[0, 0])
        self.read = [0] * self.table.n  # lines that each player has been told
        self.asked_number, self.total, self.reward = 0, 0.0, 0.0
        self.has_played, self.is_invalid, self.was_asked, self.reason = False, False, False, ""

    @property
    def game(self) -> Any:
        return self.table.playing()

    @property
    def is_over(self) -> bool:
        return bool(self.game.is_over)

    @property
    def asked(self) -> int:
        """Who is asked now."""
        return int(self.game.queue[0])

    @property
    def waits_for_others(self) -> bool:
        return not self.is_over and self.asked != self.number

    def replay_if_unasked(self) -> None:
        """Deal the next game where this one ended before the seat was ever asked."""
        if self.is_over and not self.was_asked:
            self.attempt += 1
            if self.attempt > 1000:
                raise UsageError(f"1000 games in a row ended before seat {self.number} was asked")
            self._deal()
        elif not self.is_over and self.asked == self.number:
            self.was_asked = True

    def play_other(self, answer: Any) -> None:
        """Let another player act by a number, or by words."""
        table, player = self.table, self.asked
        self.asked_number += 1
        if isinstance(answer, str):
            found = table.read(player, answer, table.choices(player))
        else:
            choices = table.choices(player)
            if answer in choices.allowed:
                self._act(player, answer, None)
                return
            found = table.replaced(player, f"action {answer} is not allowed now")
        if found.action is not None:
            self._act(player, found.action, found.text)

    def play_own(self, text: str) -> None:
        """Let the own seat answer."""
        table = self.table
        found = table.read(self.number, text, table.choices(self.number))
        self.has_played, self.is_invalid = True, found.is_illegal or found.action is None
        self.reason = "" if found.action is not None else str(table.game.log.events[-1].payload["reason"])
        self._finish_own(found)

    def play_replaced(self, reason: str) -> None:
        """Play another choice for the own seat."""
        found = self.table.replaced(self.number, reason)
        self.has_played, self.is_invalid, self.reason = True, True, reason
        self._finish_own(found)

    def _finish_own(self, found: Any) -> None:
        if found.is_illegal:
            self.reward += self.table.config.illegal_reward
            self.reason = self.reason or "the answer names no allowed choice"
        if found.action is not None:
            self.asked_number += 1
            self._act(self.number, found.action, found.text)

    def _act(self, player: int, action: int, text: str | None) -> None:
        game = self.game
        game.act(player, action, text)
        if game.rewards is not game.nothing:
            self.reward += float(game.rewards[self.number])
        if game.is_over and game.winner != NO_ONE_WON:
            self.total = float(game.rewards[self.number])

    def pop_outcome(self) -> tuple[float, bool, str]:
        """Return what the last answer came to: reward, whether it was invalid, and why."""
        found = self.reward, self.is_invalid, self.reason or "the answer was played"
        self.reward, self.has_played, self.is_invalid, self.reason = 0.0, False, False, ""
        return found

    # ---- texts

    def text(self) -> str:
        """Return all that the seat knows, and what it is asked."""
        return self.view(self.number)

    def view(self, player: int) -> str:
        """Return all that a player knows, and what it is asked."""
        lines = self.table.lines_of(player)
        self.read[player] = len(lines)
        if not self.is_brief:
            return self.table.view_text(player)
        prompt = f"{words.MODERATOR} {self.table.choices(player).prompt}"
        return "\n".join([f"You are {words.name(player)}.", *lines[:2], *_newest(lines[2:]), prompt])

    def news(self) -> str:
        """Return what is new since the seat's last text, and what it is asked."""
        lines = self.table.lines_of(self.number)[self.read[self.number] :]
        self.read[self.number] = len(self.table.lines_of(self.number))
        prompt = self.table.choices(self.number).prompt
        return "\n".join([*(_newest(lines) if self.is_brief else lines), f"{words.MODERATOR} {prompt}"])


def _newest(lines: Sequence[str], most: int = BRIEF) -> list[str]:
    """Return the last lines, as many as fit into `most` characters."""
    kept: list[str] = []
    for line in reversed(lines):
        most -= len(line) + 1
        if most < 0:
            break
        kept.append(line)
    return kept[::-1]
