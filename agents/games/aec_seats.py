"""One seat of PettingZoo games that are not ours: the others act inside the step, in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array
from torch import Tensor

from polyathlon.envs.errors import UsageError, check_positive_int
from polyathlon.envs.random import choice, episode_seed, make_keys
from polyathlon.envs.tensor.rules import check_seed, entropy_seed

DRAW = 1000  # stream of the draws of players
Opponents = Callable[[Any, Tensor | None, Tensor, Tensor, Tensor], Any]


def random_seats(obs: Any, mask: Tensor | None, player: Tensor, env_index: Tensor, key: Tensor) -> Tensor:
    """Draw uniformly from the allowed actions, [k]."""
    assert mask is not None
    return choice(key, 0, mask, DRAW)


class AECSeats(gym.vector.VectorEnv[Any, Any, Any]):
    """One seat in each of several games of PettingZoo's turn-based form, SAME_STEP.

    A step is a move of the seat with all that follows until it moves again; opponents of all rows are asked together. A game that ends
    before the seat has ever moved is left out.

    Args:
        env_fn: makes one game, `() -> AECEnv`, with Discrete actions that are the same for every player.
        num_envs: rows.
        opponents: "random", or a callable `(obs [k, ...], mask [k, A], player [k], env_index [k], key [k, 2]) -> action [k]`.
        seats: "random" or the number of a seat, in the order of `possible_agents`.
        max_episode_steps: the seat's own moves after which a game is cut; None for no limit.

    Attributes:
        seat: [N] the seat of each row.
        skipped: games that ended before the seat had moved.

    Raises:
        UsageError: a number is impossible, or the spaces differ from player to player.
    """

    num_players = 1
    single_action_space: Any

    def __init__(
        self,
        env_fn: Callable[[], Any],
        num_envs: int,
        opponents: str | Opponents = "random",
        seats: str | int = "random",
        max_episode_steps: int | None = None,
    ) -> None:
        check_positive_int(num_envs=num_envs)
        if max_episode_steps is not None:
            check_positive_int(max_episode_steps=max_episode_steps)
        if not callable(opponents) and opponents != "random":
            raise UsageError(f"opponents are 'random' or a callable for games of others, got {opponents!r}")
        self.games = [env_fn() for _ in range(int(num_envs))]
        self.num_envs, self.output = int(num_envs), "numpy"
        self.players = list(self.games[0].possible_agents)
        self.single_observation_space, self.single_action_space, self.has_masks = self._spaces()
        self.number = int(self.single_action_space.n)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        if seats != "random" and not (type(seats) is int and 0 <= seats < len(self.players)):
            raise UsageError(f"a seat is 'random' or a number from 0 to {len(self.players) - 1}, got {seats!r}")
        self.seats, self.max_episode_steps = seats, max_episode_steps or 2**62
        self.opponents: Opponents = random_seats if opponents == "random" else opponents  # type: ignore[assignment]
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        n = self.num_envs
        self.seat, self.moves, self.skipped = [0] * n, [0] * n, 0
        self._seeds, self._episodes = [0] * n, [0] * n
        self._played: list[list[int]] = [[] for _ in range(n)]
        self._paid = [0.0] * n
        self._started = False

    def _spaces(self) -> tuple[Any, Any, bool]:
        """Return the spaces of a player, the same for all, and whether observations carry masks."""
        game, first = self.games[0], self.players[0]
        seen, acts = game.observation_space(first), game.action_space(first)
        for name in self.players[1:]:
            for kind, own, other in (
                ("observation", seen, game.observation_space(name)),
                ("action", acts, game.action_space(name)),
            ):
                if own != other:
                    raise UsageError(f"all players need one {kind} space: {first} has {own}, {name} has {other}")
        if not isinstance(acts, gym.spaces.Discrete):
            raise UsageError(f"AECSeats is for games with Discrete actions, got {acts}")
        has_masks = isinstance(seen, gym.spaces.Dict) and "action_mask" in seen.spaces
        return (seen["observation"] if has_masks else seen), acts, has_masks

    # ---- games

    def _begin(self, i: int) -> None:
        """Start the next game of a row."""
        key = make_keys(torch.tensor([self._seeds[i]]), torch.tensor([self._episodes[i]]))
        drawn = int(choice(key, 0, torch.ones(1, len(self.players), dtype=torch.bool), DRAW + 1)[0])
        self.seat[i] = drawn if self.seats == "random" else int(self.seats)
        self.games[i].reset(seed=episode_seed(self._seeds[i], self._episodes[i]) % 2**31)
        self._played[i], self.moves[i] = [], 0

    def _is_over(self, i: int) -> bool:
        game = self.games[i]
        return not game.agents or all(game.terminations[a] or game.truncations[a] for a in game.agents)

    def _act(self, i: int, action: int | None) -> None:
        game, me = self.games[i], self.players[self.seat[i]]
        game.step(action)
        self._played[i].append(-1 if action is None else int(action))
        if me in game.rewards:
            self._paid[i] += float(game.rewards[me])

    def _others(self, rows: Sequence[int]) -> None:
        """Play games until their seats are asked or they are over; the opponents of all rows are asked together."""
        waiting = list(rows)
        while waiting:
            asked = []
            for i in waiting:
                game = self.games[i]
                while not self._is_over(i) and (
                    game.terminations[game.agent_selection] or game.truncations[game.agent_selection]
                ):
                    self._act(i, None)
                if not self._is_over(i) and game.agent_selection != self.players[self.seat[i]]:
                    asked.append(i)
            if asked:
                for i, action in zip(asked, self._answers(asked), strict=True):
                    self._act(i, action)
            waiting = asked

    def _answers(self, rows: Sequence[int]) -> list[int]:
        views = [self._view(i, self.games[i].agent_selection) for i in rows]
        space = self.single_observation_space
        obs = concatenate(space, [view[0] for view in views], create_empty_array(space, len(rows)))
        mask = torch.from_numpy(np.stack([view[1] for view in views]))
        player = torch.tensor([self.players.index(self.games[i].agent_selection) for i in rows])
        count = torch.tensor([(self._episodes[i] << 16) + len(self._played[i]) for i in rows])
        keys = make_keys(torch.tensor([self._seeds[i] for i in rows]) + (1 << 40), count)
        found = self.opponents(_tensors(obs), mask, player, torch.tensor(rows), keys)
        actions = torch.as_tensor(found)
        number = self.number
        if tuple(actions.shape) != (len(rows),) or actions.is_floating_point():
            raise UsageError(
                f"opponents answer with {len(rows)} integers here, got {actions.dtype} of shape {tuple(actions.shape)}"
            )
        if bool(((actions < 0) | (actions >= number)).any()):
            raise UsageError(f"opponents answered {actions.tolist()}; actions are integers from 0 to {number - 1}")
        return [int(a) for a in actions]

    def _view(self, i: int, agent: str) -> tuple[Any, np.ndarray]:
        """Return what an agent sees and may do, [A] bool."""
        seen = self.games[i].observe(agent)
        every: np.ndarray = np.ones(self.number, bool)
        if not self.has_masks:
            return seen, every
        mask = np.asarray(seen["action_mask"]).astype(bool)
        return seen["observation"], mask if mask.any() else every

    # ---- Gymnasium

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start a game in every row; row i gets `seed + i`, or its next game without a seed."""
        if seed is not None or not self._started:
            first = entropy_seed() if seed is None else check_seed(seed)
            self._seeds, self._episodes = [first + i for i in range(self.num_envs)], [0] * self.num_envs
        else:
            self._episodes = [episode + 1 for episode in self._episodes]
        self._started = True
        self._paid = [0.0] * self.num_envs
        for i in range(self.num_envs):
            self._begin(i)
        self._to_seats(range(self.num_envs))
        return self._observations(), self._info()

    def _to_seats(self, rows: Sequence[int]) -> None:
        """Let the others play in games that start; a game that ends before its seat has moved is followed by the next."""
        rows = list(rows)
        for _ in range(1000):
            self._others(rows)
            rows = [i for i in rows if self._is_over(i)]
            if not rows:
                return
            self.skipped += len(rows)
            for i in rows:
                self._episodes[i] += 1
                self._begin(i)
        raise UsageError("1000 games in a row ended before the seat had moved")

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Move in every row, and let the others play until it is the seat's turn again.

        Raises:
            UsageError: there was no reset, or an action is outside the space.
        """
        if not self._started:
            raise UsageError("step() was called before reset(); call reset() first")
        chosen, number = np.asarray(actions), self.number
        if (
            chosen.shape != (self.num_envs,)
            or chosen.dtype.kind not in "iu"
            or (chosen < 0).any()
            or (chosen >= number).any()
        ):
            raise UsageError(f"actions are {self.num_envs} integers from 0 to {number - 1}, got {actions!r}")
        self._paid = [0.0] * self.num_envs
        for i in range(self.num_envs):
            self._act(i, int(chosen[i]))
            self.moves[i] += 1
        self._others(range(self.num_envs))
        over = [self._is_over(i) for i in range(self.num_envs)]
        cut = [not over[i] and self.moves[i] >= self.max_episode_steps for i in range(self.num_envs)]
        terminated, truncated = np.array(over), np.array(cut)
        for i in np.flatnonzero(terminated).tolist():
            game, me = self.games[i], self.players[self.seat[i]]
            if game.truncations.get(me) and not game.terminations.get(me):
                terminated[i], truncated[i] = False, True
        rewards = np.array(self._paid, np.float32)
        ended = terminated | truncated
        info: dict[str, Any] = {}
        if ended.any():
            finals = np.full(self.num_envs, None, object)
            for i in np.flatnonzero(ended).tolist():
                finals[i] = self._view(i, self.players[self.seat[i]])[0]
                self._episodes[i] += 1
            info = {"final_obs": finals, "_final_obs": ended}
            rows = [int(i) for i in np.flatnonzero(ended)]
            for i in rows:
                self._begin(i)
            self._to_seats(rows)
        return self._observations(), rewards, terminated, truncated, {**self._info(), **info}

    def _observations(self) -> Any:
        space = self.single_observation_space
        seen = [self._view(i, self.players[self.seat[i]])[0] for i in range(self.num_envs)]
        return concatenate(space, seen, create_empty_array(space, self.num_envs))

    def _info(self) -> dict[str, Any]:
        every = np.ones(self.num_envs, bool)
        info = {"seat": np.array(self.seat), "_seat": every}
        return {**info, "action_mask": self.action_masks(), "_action_mask": every} if self.has_masks else info

    def action_masks(self) -> np.ndarray:
        """Return what the seats may do, (N, A) bool."""
        return np.stack([self._view(i, self.players[self.seat[i]])[1] for i in range(self.num_envs)])

    def close_extras(self, **kwargs: Any) -> None:
        """Close the games."""
        for game in getattr(self, "games", ()):
            game.close()

    # ---- keeping and continuing

    def get_state(self) -> dict[str, Any]:
        """Return the seed, the episode and the actions of each row, from which `set_state` plays again."""
        names = ("_seeds", "_episodes", "seat", "moves")
        own = {name: list(getattr(self, name)) for name in names}
        return {**own, "played": [list(actions) for actions in self._played], "skipped": self.skipped}

    def set_state(self, state: dict[str, Any]) -> None:
        """Play again what `get_state` told.

        Raises:
            UsageError: the state has another number of rows.
        """
        if len(state["seat"]) != self.num_envs:
            raise UsageError(f"the state holds {len(state['seat'])} rows, this environment has {self.num_envs}")
        self._seeds, self._episodes = list(state["_seeds"]), list(state["_episodes"])
        self._started, self.skipped = True, state["skipped"]
        self._paid = [0.0] * self.num_envs
        for i in range(self.num_envs):
            self._begin(i)
            for action in state["played"][i]:
                self._act(i, None if action < 0 else action)
        self.seat, self.moves = list(state["seat"]), list(state["moves"])


def _tensors(obs: Any) -> Any:
    if isinstance(obs, dict):
        return {name: _tensors(item) for name, item in obs.items()}
    return torch.from_numpy(np.asarray(obs)) if isinstance(obs, np.ndarray) else obs
