"""Self-play of language agents: past selves answer for the other seats, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError

from .matches import Match
from .pool import Pool

MOST_GAMES = 1 << 16


class PoolSpeakers:
    """The pool at the other seats of a game in words: each game keeps the member that it began with.

    Args:
        pool: the past selves, at least one.
        latest_share: share of the games against the newest member.
    """

    is_guarded = False  # an error in an actor of ours is no fault of a player: it ends the run

    def __init__(self, pool: Pool, latest_share: float) -> None:
        self.pool, self.latest_share = pool, latest_share
        self.member: dict[int, int] = {}

    def answer(self, texts: Sequence[str], keys: Tensor, games: Sequence[int]) -> list[str]:
        """Answer each text with draws of its own key; texts of one game go to one member.

        Args:
            texts: what is asked.
            keys: [n, 2] int64.
            games: number of each text's game.
        """
        if len(self.member) > MOST_GAMES:
            self.member.clear()
        for game in games:
            if self.member.get(game) not in self.pool.actors:
                is_latest = (game % 1000) / 1000 < self.latest_share
                self.member[game] = self.pool.active[-1 if is_latest else game // 1000 % len(self.pool.active)]
        found = [""] * len(texts)
        for number in sorted({self.member[game] for game in games}):
            index = [i for i, game in enumerate(games) if self.member[game] == number]
            actor: Any = self.pool.actors[number]
            said = actor.answer([texts[i] for i in index], keys[index].to(actor.device))
            for i, text in zip(index, said, strict=True):
                found[i] = text
        return found


class Speaker:
    """A language actor as the player of all other seats."""

    is_guarded = False

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def answer(self, texts: Sequence[str], keys: Tensor, games: Sequence[int]) -> list[str]:
        """Answer each text with draws of its own key."""
        return list(self.actor.answer(list(texts), keys.to(self.actor.device)))


def words_task(game: Any, opponent: Any, view: str = "full") -> Any:
    """Return one seat of a game in words.

    Raises:
        UsageError: the game has no form in words.
    """
    make = getattr(game, "words_task", None)
    if make is None:
        raise UsageError(f"{type(game).__name__} has no form in words (words_task), which a language agent needs")
    return make(opponent, view=view)


def play_words_match(
    game: Any, mine: Any, other: Any, names: Sequence[str], games: int, seed: int = 0, view: str = "full"
) -> Match:
    """Let a language actor play one seat against another player in all others.

    Args:
        game: the game, with `words_task`.
        mine: a `TextActor`.
        other: a player of numbers by name or callable, or an object with `answer`.
        names: of both.
        games: how many.
        seed: of the first game.
        view: of the game in words.
    """
    task = words_task(game, other, view)
    batch = task.batch(games)
    texts, _ = batch.reset(seed=seed)
    live, reward, turns = list(range(games)), torch.zeros(games), torch.zeros(games)
    seeds = torch.arange(games) + seed
    while live:
        keys = torch.stack([seeds[live], turns[live].long()], 1)
        said = mine.answer(texts, keys.to(mine.device))
        texts, paid, ended, cut, _ = batch.step(said, rows=live)
        reward[live] += torch.from_numpy(paid)
        turns[live] += 1
        kept = [k for k in range(len(live)) if not (ended[k] or cut[k])]
        live, texts = [live[k] for k in kept], [texts[k] for k in kept]
    wins, losses = int((reward > 0).sum()), int((reward < 0).sum())
    mean = float(reward.mean())
    score = (wins + 0.5 * (games - wins - losses)) / games
    length = float(turns.mean())
    return Match((names[0], names[1]), games, wins, games - wins - losses, losses, mean, -mean, (score,), length)
