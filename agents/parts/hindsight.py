"""Hindsight experience replay: minibatches in which episodes have reached goals that they were not given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.her.goal_selection_strategy import GoalSelectionStrategy
from torch import Tensor

from polyathlon.envs.errors import UsageError, check_int, unknown_name

from .parts_replay import PartsReplay
from .replay import Replay, Transitions
from .whole_episodes import WholeEpisodes

ACHIEVED, DESIRED = "achieved_goal", "desired_goal"
GOAL_KEYS = ("observation", ACHIEVED, DESIRED)
STRATEGIES = ("future", "final", "episode")
RewardFunction = Callable[[Tensor, Tensor, list[dict[str, Any]]], Tensor]


class HerReplayBuffer:
    """Hindsight experience replay (Andrychowicz et al. 2017, arXiv 1707.01495), a sampler of the replay memory.

    Give it to an off-policy agent on an environment with the observations "observation", "achieved_goal", "desired_goal" and a
    method `compute_reward(achieved_goal, desired_goal, info)`: `SAC("MultiInputPolicy", env,
    replay_buffer_class=HerReplayBuffer, replay_buffer_kwargs={"n_sampled_goal": 4})`. Name and words are those of SB3.

    Transitions are drawn evenly from whole episodes, those that have ended and of which nothing is overwritten. The share
    n / (n + 1) of a minibatch gets the goal that a transition of the same episode achieved, and the reward that the environment
    computes for it, in one call a minibatch. Ends stay as they were.

    Args:
        n_sampled_goal: n, transitions with new goals for each one with its own.
        goal_selection_strategy: whose achieved goal is taken: "future", of a transition from the same one on to the last;
            "final", of the last; "episode", of any. SB3's `GoalSelectionStrategy` too.
        copy_info_dict: keep the infos of every step and hand them to `compute_reward`: their numbers, texts, arrays, and lists
            and dicts of them. Costs time and memory; without it the infos are empty dicts.

    Raises:
        UsageError: a word is impossible.
    """

    words = ("n_sampled_goal", "goal_selection_strategy", "copy_info_dict")

    def __init__(
        self,
        n_sampled_goal: int = 4,
        goal_selection_strategy: str | GoalSelectionStrategy = "future",
        copy_info_dict: bool = False,
    ) -> None:
        check_int(0, n_sampled_goal=n_sampled_goal)
        strategy = goal_selection_strategy
        strategy = strategy.name if isinstance(strategy, GoalSelectionStrategy) else str(strategy)
        if strategy.lower() not in STRATEGIES:
            raise unknown_name("goal selection strategy", strategy, STRATEGIES)
        self.n_sampled_goal, self.goal_selection_strategy = int(n_sampled_goal), strategy.lower()
        self.copy_info_dict = bool(copy_info_dict)
        self.compute_reward: RewardFunction | None = None
        self._has_whole = False

    def settings(self) -> dict[str, Any]:
        """Return the words that make it again."""
        return {name: getattr(self, name) for name in self.words}

    def join(self, replay: PartsReplay, n_envs: int, goal_space: spaces.Box, compute_reward: RewardFunction) -> None:
        """Make the minibatches of a memory.

        Args:
            replay: has one tensor for each key of the observation, and room for a multiple of `n_envs` transitions.
            n_envs: number of environments.
            goal_space: of "achieved_goal"; `compute_reward` gets its kind of numbers.
            compute_reward: (achieved [B, ...], desired [B, ...], infos) -> rewards [B].
        """
        self.compute_reward = compute_reward
        self.kind = torch.from_numpy(np.empty(0, goal_space.dtype)).dtype
        self.episodes = WholeEpisodes(replay.capacity, n_envs, replay.rows.device)
        self.infos: dict[int, dict[str, Any]] = {}
        replay.stride, replay.sampler = n_envs, self

    def sample(self, replay: PartsReplay, batch_size: int, generator: torch.Generator) -> Transitions:
        """Draw transitions, give the first of them new goals, and pay them for those.

        Raises:
            UsageError: no episode has ended yet.
        """
        counts = self.episodes.count()
        if not self._has_whole or counts.device.type == "cpu":  # asking an accelerator stalls it
            self._has_whole = bool(counts.any())
            if not self._has_whole:
                raise UsageError(
                    "HerReplayBuffer draws from episodes that have ended, and none has: let learning_starts be more than the "
                    "longest episode (times the number of environments), and buffer_size more than that"
                )
        u = torch.rand(2, batch_size, generator=generator, device=replay.rows.device, dtype=torch.float64)
        place = self.episodes.draw(u[0], counts)
        return self.relabelled(replay, place, u[1, : batch_size * self.n_sampled_goal // (self.n_sampled_goal + 1)])

    def relabelled(self, replay: PartsReplay, place: Tensor, u: Tensor) -> Transitions:
        """Return the transitions at places [B] of the ring, the first V of them with other goals.

        Args:
            replay: the memory.
            place: of transitions of whole episodes.
            u: [V] float64 in [0, 1), which says whose goals are taken.
        """
        number = u.shape[0]
        batch = replay.raw(place)
        if not number:
            return replay.normalized(batch, replay.normalized_reward(batch.reward))
        chosen = place[:number]
        goal = replay.next_obs[ACHIEVED].index_select(0, self.goal_places(chosen, u))
        for obs in (batch.obs, batch.next_obs):
            obs[DESIRED][:number] = goal
        infos = [self.infos.get(i, {}) for i in chosen.tolist()] if self.copy_info_dict else [{} for _ in range(number)]
        assert self.compute_reward is not None
        # r = reward(s', g): what was achieved after the action counts
        achieved = batch.next_obs[ACHIEVED][:number].to(self.kind)
        reward = batch.reward.clone()
        reward[:number] = self.compute_reward(achieved, goal.to(self.kind), infos).to(reward)
        return replay.normalized(batch, replay.normalized_reward(reward))

    def goal_places(self, place: Tensor, u: Tensor) -> Tensor:
        """Return the places [V] of the transitions whose achieved goals are taken."""
        current, length = self.episodes.span(place)
        if self.goal_selection_strategy == "final":
            return self.episodes.place(place, length - 1)
        least = current if self.goal_selection_strategy == "future" else torch.zeros_like(current)
        step = least + (u * (length - least)).long()
        return self.episodes.place(place, torch.minimum(step, length - 1))

    def added(self, replay: PartsReplay, number: int, ended: Tensor) -> None:
        """Note the ends of episodes."""
        self.episodes.add(replay.added - number, ended)

    def note(self, replay: Replay, infos: list[dict[str, Any]]) -> None:
        """Keep the infos of the step that was added last."""
        start = (replay.position - len(infos)) % replay.capacity
        self.infos.update({start + i: _plain(info) for i, info in enumerate(infos)})

    def cut(self, replay: PartsReplay) -> None:
        """Let the episodes that run end where they are."""
        self.episodes.cut(replay.added)

    def get_state(self) -> dict[str, Any]:
        """Return where the episodes are."""
        infos = [self.infos.get(i) for i in range(max(self.infos, default=-1) + 1)]
        return {"episodes": self.episodes.get_state(), "infos": infos}

    def set_state(self, state: dict[str, Any] | None) -> None:
        """Go on from there.

        Raises:
            UsageError: the state is of a memory without episodes.
        """
        if not state or state["episodes"]["first"].shape != self.episodes.first.shape:
            raise UsageError(
                "HerReplayBuffer needs to know where the episodes of a replay buffer begin, and this file was written by one "
                "without it, or of another buffer_size"
            )
        if state["episodes"]["low"].shape != self.episodes.low.shape:
            raise UsageError(f"the replay buffer was filled by {state['episodes']['low'].shape[0]} environments")
        self.episodes.set_state(state["episodes"])
        self.infos = {i: info for i, info in enumerate(state["infos"]) if info is not None}


def refuse_other_goals(owner: str, space: spaces.Space[Any]) -> None:
    """Refuse observations without goals.

    Raises:
        UsageError: a key is missing, or the goals differ in shape.
    """
    parts = space.spaces if isinstance(space, spaces.Dict) else {}
    if any(key not in parts for key in GOAL_KEYS) or parts[ACHIEVED].shape != parts[DESIRED].shape:
        raise UsageError(
            f"HerReplayBuffer needs a Dict observation with the keys {', '.join(GOAL_KEYS)}, the goals of one shape; the "
            f"observation of this {owner} is {space}: leave replay_buffer_class out, or take a goal environment "
            "(gymnasium_robotics.core.GoalEnv)"
        )


def _plain(value: Any) -> Any:
    """Return a copy of what files can hold of an info; what they cannot is left out."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if isinstance(k, str) and _is_plain(v)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value if _is_plain(item)]
    return value.copy() if isinstance(value, np.ndarray) else value.item() if isinstance(value, np.generic) else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype != object
    return value is None or isinstance(value, bool | int | float | str | np.generic | dict | list | tuple)
