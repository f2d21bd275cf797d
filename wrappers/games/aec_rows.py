"""Games of PettingZoo's turn-based form side by side, whose players are asked in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector.utils import concatenate, create_empty_array
from torch import Tensor

from polyathlon.envs.errors import UsageError, check_positive_int
from polyathlon.envs.random import choice, episode_seed, make_keys

DRAW = 1000  # stream of the draws of players
ANSWERS = 1 << 40  # added to the seed of a row, away from the seeds of its games
Opponents = Callable[[Any, Tensor | None, Tensor, Tensor, Tensor], Any]


def random_seats(obs: Any, mask: Tensor | None, player: Tensor, env_index: Tensor, key: Tensor) -> Tensor:
    """Draw uniformly from the allowed actions, [k]."""
    assert mask is not None
    return choice(key, 0, mask, DRAW)


def as_turns(game: Any) -> Any:
    """Return a game in the turn-based form; a `ParallelEnv` is played in turns."""
    if hasattr(game, "step") and not hasattr(game, "agent_selection") and not hasattr(game, "agent_iter"):
        from pettingzoo.utils import parallel_to_aec

        return parallel_to_aec(game)
    return game


def player_spaces(game: Any) -> tuple[Any, gym.spaces.Discrete, bool]:
    """Return the observation and the action space of a player, the same for all, and whether observations carry masks.

    Raises:
        UsageError: they differ from player to player, or actions are not Discrete.
    """
    first, *others = game.possible_agents
    seen, acts = game.observation_space(first), game.action_space(first)
    for name in others:
        for kind, own, other in (
            ("observation", seen, game.observation_space(name)),
            ("action", acts, game.action_space(name)),
        ):
            if own != other:
                raise UsageError(f"all players need one {kind} space: {first} has {own}, {name} has {other}")
    if not isinstance(acts, gym.spaces.Discrete):
        raise UsageError(f"a seat of a game of PettingZoo needs Discrete actions, got {acts}")
    has_masks = isinstance(seen, gym.spaces.Dict) and "action_mask" in seen.spaces
    return (seen["observation"] if has_masks else seen), acts, has_masks


class AECRows:
    """Games of PettingZoo's turn-based form, one a row, each in the episode that its seed and number give.

    Args:
        env_fn: makes one game, `() -> AECEnv`, with Discrete actions that are the same for every player.
        num_envs: rows.
        opponents: `(obs [k, ...], mask [k, A], player [k], env_index [k], key [k, 2]) -> action [k]`, integers of the space (`Guarded` sees to that).
        device: where opponents are asked.

    Raises:
        UsageError: a number is impossible, or the spaces differ from player to player.
    """

    def __init__(
        self, env_fn: Callable[[], Any], num_envs: int, opponents: Opponents, device: torch.device | str = "cpu"
    ) -> None:
        check_positive_int(num_envs=num_envs)
        self.games = [env_fn() for _ in range(int(num_envs))]
        self.players = list(self.games[0].possible_agents)
        self.space, acts, self.has_masks = player_spaces(self.games[0])
        self.number = int(acts.n)
        self.opponents, self.device = opponents, torch.device(device)
        n = int(num_envs)
        self.seeds, self.episodes, self.seat = [0] * n, [0] * n, [-1] * n
        self.played: list[list[int]] = [[] for _ in range(n)]
        self.paid = np.zeros((n, len(self.players)))

    def key(self, i: int) -> Tensor:
        """Return the key of the game of a row, [1, 2]."""
        return make_keys(torch.tensor([self.seeds[i]]), torch.tensor([self.episodes[i]]))

    def begin(self, i: int, seat: int) -> None:
        """Start the game of a row's seed and episode again; `seat` is played from outside, -1 for none."""
        self.seat[i] = seat
        self.games[i].reset(seed=episode_seed(self.seeds[i], self.episodes[i]) % 2**31)
        self.played[i] = []

    def is_over(self, i: int) -> bool:
        """Return whether nobody is left to move."""
        game = self.games[i]
        return not game.agents or all(game.terminations[a] or game.truncations[a] for a in game.agents)

    def act(self, i: int, action: int | None) -> None:
        """Move for whose turn it is; what each player is paid is added to `paid`."""
        game = self.games[i]
        game.step(action)
        self.played[i].append(-1 if action is None else int(action))
        for number, name in enumerate(self.players):
            if name in game.rewards:
                self.paid[i, number] += float(game.rewards[name])

    def play_others(self, rows: Sequence[int], limit: int | None = None) -> None:
        """Play games until their seats are asked or they are over; the opponents of all rows are asked together.

        Args:
            rows: numbers of the games.
            limit: moves after which a game is left as it is; None for no limit.
        """
        waiting = list(rows)
        while waiting:
            asked = []
            for i in waiting:
                game = self.games[i]
                while not self.is_over(i) and (
                    game.terminations[game.agent_selection] or game.truncations[game.agent_selection]
                ):
                    self.act(i, None)
                is_cut = limit is not None and len(self.played[i]) >= limit
                if not is_cut and not self.is_over(i) and self._mover(i) != self.seat[i]:
                    asked.append(i)
            if asked:
                for i, action in zip(asked, self._answers(asked), strict=True):
                    self.act(i, action)
            waiting = asked

    def _mover(self, i: int) -> int:
        return self.players.index(self.games[i].agent_selection)

    def _answers(self, rows: Sequence[int]) -> list[int]:
        views = [self.view(i, self.games[i].agent_selection) for i in rows]
        obs = concatenate(self.space, [view[0] for view in views], create_empty_array(self.space, len(rows)))
        mask = torch.from_numpy(np.stack([view[1] for view in views]))
        player = torch.tensor([self._mover(i) for i in rows])
        count = torch.tensor([(self.episodes[i] << 16) + len(self.played[i]) for i in rows])
        keys = make_keys(torch.tensor([self.seeds[i] for i in rows]) + ANSWERS, count)
        facts = (x.to(self.device) for x in (mask, player, torch.tensor(rows), keys))
        answers: list[int] = self.opponents(_tensors(obs, self.device), *facts).tolist()
        return answers

    def view(self, i: int, agent: str) -> tuple[Any, np.ndarray]:
        """Return what an agent sees and may do, [A] bool."""
        seen = self.games[i].observe(agent)
        every: np.ndarray = np.ones(self.number, bool)
        if not self.has_masks:
            return seen, every
        mask = np.asarray(seen["action_mask"]).astype(bool)
        return seen["observation"], mask if mask.any() else every

    def close(self) -> None:
        """Close the games."""
        for game in self.games:
            game.close()


def _tensors(obs: Any, device: torch.device) -> Any:
    if isinstance(obs, dict):
        return {name: _tensors(item, device) for name, item in obs.items()}
    return torch.from_numpy(np.asarray(obs)).to(device) if isinstance(obs, np.ndarray) else obs
