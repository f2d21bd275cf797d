"""Self-play: any agent learns a game against itself and a pool of its past selves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.type_aliases import MaybeCallback

from polyathlon.agents.base import Agent
from polyathlon.agents.language.agent import LanguageAgent
from polyathlon.agents.on_policy.ppo import PPO
from polyathlon.agents.parts.devices import find_device
from polyathlon.envs.errors import UsageError, check_fraction, check_int, check_positive_int
from polyathlon.envs.tensor import TensorEnv
from polyathlon.envs.tensor.opponents import player_names
from polyathlon.wrappers.tokens.token_action import TokenAction

from . import league_files
from .finding import find_game
from .foreign import ForeignGame, ForeignSeats
from .game_rows import GameRows, find_groups
from .matches import Match, play_match
from .members import find_player, find_speaker
from .one_seat import LeagueSeats, Points, PoolOpponents, member_of
from .pool import Pool
from .ratings import Matrix, Ratings, rate
from .seat_rollout import SeatRollout
from .seats import SeatPlay
from .word_seats import PoolSpeakers, play_words_match, words_task

# numbers of PPO that suit many short games at once; those that the user gives go before them
DEFAULTS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "n_steps": 32,
    "batch_size": 512,
    "n_epochs": 4,
    "gamma": 1.0,
    "gae_lambda": 1.0,  # games are short, and values that lag behind a changing opponent mislead
    "ent_coef": 0.02,
    "policy_kwargs": {"net_arch": [128, 128]},
}
SNAPSHOT_ROLLOUTS = 5
GAMES, FOREIGN_GAMES = 256, 16  # played at once
STEPS_BETWEEN, TOKENS_BETWEEN = 10_000, 20_000  # snapshots of agents in one seat, and of language agents


class SelfPlay:
    """Train an agent on a game of several players: it plays all seats itself, part of the games against its past selves.

    Every game is played at once on the device, every seat learns from its own moves, and frozen snapshots of the agent take the
    other seats of some games. A timestep is a tick of a game: one move, or all moves at once where players move at once.

    Args:
        agent: the class of the agent, or its name. PPO and agents made of it learn in all seats at once; a language agent writes
            in one seat of a game in words (`max_new_tokens` and `max_length` are those of `TokenAction`, `policy` is its
            model, `view` how much the game tells);
            all others act in one seat, of a game of choices by points in a box where they need one.
        env_fn: the game: a `TensorEnv` or its class, an id, or a function that makes a PettingZoo environment, also as
            "module:function". One without `tensor_task()` is played in one seat by every agent, PPO among them.
        env_kwargs: its options.
        num_envs: games at once; None for 256 on tensors and 16 of PettingZoo's own.
        pool_size: most past selves in the pool.
        opponents: which of them meet the learner: "uniform", "prioritised" or "latest", see `Pool`.
        latest_share: share of the games in which the learner has all seats.
        per_role: which seats are played by one policy in a game, see `find_groups`.
        snapshot_every: timesteps between snapshots; None takes one every five rollouts.
        max_episode_steps: ticks after which a game is cut; None for the game's own limit.
        seed: of everything random.
        device: "auto", "cpu", "cuda" or a torch device.
        policy: of the agent.
        **agent_kwargs: words of the agent.

    Attributes:
        agent: the learner.
        pool: the past selves.

    Raises:
        UsageError: a number is impossible, the game has one player, or the agent cannot play it.
    """

    def __init__(
        self,
        agent: type[Agent] | str,
        env_fn: Any,
        *,
        env_kwargs: dict[str, Any] | None = None,
        num_envs: int | None = None,
        pool_size: int = 4,
        opponents: str = "uniform",
        latest_share: float = 0.5,
        per_role: Any = None,
        snapshot_every: int | None = None,
        max_episode_steps: int | None = None,
        seed: int | None = None,
        device: torch.device | str = "auto",
        policy: Any = "MlpPolicy",
        **agent_kwargs: Any,
    ) -> None:
        check_positive_int(pool_size=pool_size, **({} if num_envs is None else {"num_envs": num_envs}))
        check_fraction(latest_share=latest_share)
        if snapshot_every is not None:
            check_positive_int(snapshot_every=snapshot_every)
        if seed is not None:
            check_int(0, seed=seed)
        for word in ("env", "n_envs"):
            if word in agent_kwargs:
                raise UsageError(f"{word} is no word of SelfPlay: it takes env_fn, env_kwargs and num_envs")
        self.device = find_device(device)
        self.task = find_game(env_fn, env_kwargs or {}, self.device)
        self.agent_class: Any = league_files.agent_named(agent)  # every agent has words of its own
        self.num_envs = int(num_envs or (FOREIGN_GAMES if isinstance(self.task, ForeignGame) else GAMES))
        self.latest_share = float(latest_share)
        self.groups = find_groups(self.task, per_role)
        self.max_episode_steps = max_episode_steps
        seeds = np.random.SeedSequence(seed).spawn(1)[0].generate_state(2, np.uint64) >> np.uint64(1)
        generators = [torch.Generator(device=self.device).manual_seed(int(s)) for s in seeds]
        self.pool = Pool(pool_size, opponents, generators[0])
        self.seats: SeatPlay | None = None
        self.points: Points | None = None
        self.others: PoolOpponents | None = None
        words = {"seed": seed, "device": self.device, **agent_kwargs}
        self.is_language = issubclass(self.agent_class, LanguageAgent)
        if issubclass(self.agent_class, PPO) and isinstance(self.task, TensorEnv):
            self._play_all_seats(policy, words, generators[1])
        elif self.is_language:
            self._speak(policy, words)
        else:
            self._play_one_seat(policy, words)
        self.snapshot_every = snapshot_every or self._usual_interval()
        self.last_snapshot = -1
        self.words = league_files.words_of(self, env_fn, env_kwargs or {}, per_role, seed, policy, agent_kwargs)

    def _play_all_seats(self, policy: Any, words: dict[str, Any], generator: torch.Generator) -> None:
        for word in ("normalize_rewards", "bonus"):
            if words.get(word):
                raise UsageError(f"{word} has no meaning in self-play: leave it out")
        assert isinstance(self.task, TensorEnv)
        rows = GameRows(self.task, self.num_envs, self.max_episode_steps)
        self.agent: Any = self.agent_class(policy, rows, **{**DEFAULTS, **words})
        self.seats = SeatPlay(rows, self.pool, self.groups, self.latest_share, generator)
        self.agent.seats, self.agent.rollout_class = self.seats, SeatRollout

    def _play_one_seat(self, policy: Any, words: dict[str, Any]) -> None:
        space = self.task.action_space
        if isinstance(space, spaces.Discrete) and "discrete" not in self.agent_class.action_forms:
            self.points = Points(int(space.n), self.device)
        member = member_of(self.points)
        others = PoolOpponents(self.task, self.num_envs, self.pool, self.groups, self.latest_share, member)
        seats: Any = ForeignSeats if isinstance(self.task, ForeignGame) else LeagueSeats
        env = seats(self.task, self.num_envs, others, self.points, self.max_episode_steps)
        own = DEFAULTS if issubclass(self.agent_class, PPO) else {}
        self.agent, self.others = self.agent_class(policy, env, **{**own, **words}), others

    def _speak(self, policy: Any, words: dict[str, Any]) -> None:
        if isinstance(self.task, ForeignGame):
            raise UsageError(f"a language agent plays games in words, and {self.task.name} has no such form")
        model = "tiny" if policy == "MlpPolicy" else policy
        own = {word: words.pop(word) for word in ("max_new_tokens", "max_length") if word in words}
        self.view = str(words.pop("view", "brief" if model == "tiny" else "full"))
        task = words_task(self.task, PoolSpeakers(self.pool, self.latest_share), self.view)
        env = TokenAction(task, model=model, **{"max_new_tokens": 16, "max_length": 1024, **own})
        self.agent = self.agent_class(model, env, **words)

    def _usual_interval(self) -> int:
        if self.seats is not None:
            return int(SNAPSHOT_ROLLOUTS * self.agent.n_steps * self.num_envs)
        return TOKENS_BETWEEN if self.is_language else STEPS_BETWEEN

    @property
    def rows(self) -> Any:
        """The games of an agent that plays all seats, or its seats."""
        return self.agent.source.vector_env

    # ---- learning

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = False,
        progress_bar: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Train for at least `total_timesteps` ticks; see `Agent.learn`. A second call goes on with the first.

        Args:
            total_timesteps: ticks of this call.
            callback: callbacks of SB3.
            reset_num_timesteps: count from zero.
            progress_bar: show one.
            **kwargs: `log_interval`, `tb_log_name`.
        """
        if not self.pool.count:
            self.snapshot()  # somebody has to sit at the table
        own: list[BaseCallback] = [_Snapshots(self, reset_num_timesteps or not self._has_started)]
        if callback is not None:
            more = callback if isinstance(callback, list) else [callback]
            own += [c if isinstance(c, BaseCallback) else ConvertCallback(c) for c in more]
        self.agent.learn(
            total_timesteps,
            CallbackList(own),
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
            **kwargs,
        )
        return self

    @property
    def _has_started(self) -> bool:
        return self.agent.source is not None and self.agent.source.started

    @property
    def num_timesteps(self) -> int:
        """Ticks played so far, over all games."""
        return int(self.agent.num_timesteps)

    def snapshot(self) -> None:
        """Take a frozen copy of the learner into the pool."""
        self.pool.add(self.agent.frozen_actor(self.device), self.agent.num_timesteps)
        self.last_snapshot = self.agent.num_timesteps

    # ---- measuring

    @property
    def names(self) -> list[str]:
        """Names of who can be matched: "random", the members, "latest"."""
        own = [] if self.is_language else player_names(self.task)
        return [*own, *self.pool.names, "latest"]

    def member(self, actor: Any, deterministic: bool = False) -> Any:
        """Return an actor of this league as a player."""
        return member_of(self.points)(actor, deterministic)

    def player(self, name: str | Callable[..., Any]) -> Any:
        """Return a player by its name, the folder of a league, the file of an agent, or a callable; see `match`."""
        return find_player(self, name)

    def match(
        self,
        a: Any,
        b: Any,
        games: int = 100,
        seed: int = 0,
        deterministic: bool = False,
        time_limit: float | None = None,
    ) -> Match:
        """Let two players meet.

        Args:
            a: "latest", "random", a player of the game by name, a member ("v3"), the folder of a league or the file of an agent, or a
                callable `(obs, mask, player, env_index, key) -> action`.
            b: the same.
            games: how many; `a` has each group of seats (each seat) in as equal a number of them as possible.
            seed: of the first game.
            deterministic: agents take their likeliest actions.
            time_limit: seconds that an answer may take, of games in numbers; None for no limit. What players do wrong is in `faults`.

        Raises:
            UsageError: a name is unknown, `games` or `time_limit` is not positive.
        """
        names = [name if isinstance(name, str) else getattr(name, "__name__", "callable") for name in (a, b)]
        if self.is_language:
            check_positive_int(games=games)
            if time_limit is not None:
                raise UsageError("time_limit is for games in numbers: leave it out of a match in words")
            mine, other = find_speaker(self, a), find_speaker(self, b)
            if isinstance(mine, str):
                raise UsageError(f"the first player of a match in words is a language agent, got {a!r}")
            return play_words_match(self.task, mine.actor, other, names, games, seed, self.view)
        players = [find_player(self, name, deterministic) for name in (a, b)]
        return play_match(self.task, players, names, games, self.groups, seed, self.max_episode_steps, time_limit)

    def matrix(self, games: int = 100, names: list[str] | None = None, seed: int = 0) -> Matrix:
        """Return the pay-off matrix: the mean reward of each player against each other, over all seats.

        Args:
            games: of each pair.
            names: the players; None takes `names`.
            seed: of the first game of each pair.

        Raises:
            UsageError: a name is unknown or given twice.
        """
        chosen = names or self.names
        if len(set(chosen)) < len(chosen):
            raise UsageError(f"a matrix has one row for each player, got {chosen}; name each of them once")
        found = {(a, b): self.match(a, b, games, seed) for i, a in enumerate(chosen) for b in chosen[i + 1 :]}
        return Matrix(chosen, found)

    def ratings(self, games: int = 100, names: list[str] | None = None, seed: int = 0) -> Ratings:
        """Return the Elo ratings of the members, with intervals, from a round robin of `games` for each pair."""
        return rate(self.matrix(games, names, seed))

    # ---- files

    def save(self, folder: str | Path) -> Path:
        """Write the league into a folder: its words, its agent, its pool and where its games stand."""
        return league_files.save(self, Path(folder))

    @classmethod
    def resume(cls, folder: str | Path, env_fn: Any = None, device: torch.device | str = "auto", **words: Any) -> Self:
        """Go on with a saved league; `learn` then gives the numbers of an unbroken run.

        Args:
            folder: what `save` wrote.
            env_fn: the game, where it was given as a function or an object that has no name.
            device: where it goes.
            **words: those that have no name to import them by, such as a schedule that a function made, are given again.

        Raises:
            UsageError: a file is missing or damaged, a member has other spaces than the game, or a word has to be given again.
        """
        league: Any = league_files.resume(cls, Path(folder), env_fn, device, words)
        assert isinstance(league, cls)
        return league


class _Snapshots(BaseCallback):
    """Takes snapshots at the ends of rollouts, the first before learning starts, and logs the results against the pool."""

    def __init__(self, league: SelfPlay, is_new: bool) -> None:
        super().__init__()
        self.league, self.is_new = league, is_new

    def _on_training_start(self) -> None:
        if self.is_new and self.league.seats is not None:
            self.league.seats.start()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        league = self.league
        source = league.seats or league.others
        found = [] if source is None else source.pop_results()
        if found:
            self.logger.record("rollout/score_against_pool", sum(found) / len(found))
        self.logger.record("rollout/pool_size", len(league.pool.active))
        if league.agent.num_timesteps - league.last_snapshot >= league.snapshot_every:
            league.snapshot()
