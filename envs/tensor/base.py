"""What a task written on tensors gives; its interfaces do the rest."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from importlib import import_module
from typing import Any, ClassVar, Protocol

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError, unknown_name


class State(Protocol):
    """A batch of rows: a NamedTuple of tensors, batch first (a field may itself be such a NamedTuple).

    Attributes:
        key: [N, 2] int64 random key of the row's episode.
        t: [N] int64 steps since its reset.
    """

    key: Tensor
    t: Tensor

    def _asdict(self) -> dict[str, Any]: ...


DTYPES = {"float32": torch.float32, "float64": torch.float64}


def parse_device(device: torch.device | str) -> torch.device:
    """Turn a name into a device that exists here.

    Raises:
        UsageError: the name is unknown to torch, or this machine has no such device.
    """
    try:
        parsed = torch.device(device)
        torch.empty(0, device=parsed)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"device {device!r} cannot be used here ({reason}); use 'cpu', or 'cuda' on a machine with a GPU"
        ) from error
    return parsed


def parse_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """Turn "float32", "float64" or torch's own name into a type.

    Raises:
        UsageError: it is another type.
    """
    parsed = DTYPES.get(dtype, dtype) if isinstance(dtype, str) else dtype
    if parsed not in DTYPES.values():
        raise UsageError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
    return parsed  # type: ignore[return-value]


class TensorEnv(ABC):
    """A task's dynamics: pure functions on batches of tensors.

    It keeps no state of an episode; `reset` and `step` return new states and never write into tensors they were given.
    Time limits, resets, seeds, masks and output formats belong to the interfaces in `polyathlon.envs.tensor`. Operations
    must treat every row alike and alone, so that an episode is the same in any batch. (For that, feed `sin`, `exp` and
    the like contiguous tensors: torch takes another code path for strided ones.)

    A goal task observes a Dict of "observation", "achieved_goal" and "desired_goal", and has besides a method
    `compute_reward(achieved_goal, desired_goal, info) -> reward` on tensors [..., G], by which goals are changed in hindsight;
    its interfaces offer it as in Gymnasium-Robotics.

    Attributes:
        metadata: Gymnasium's, e.g. `{"render_modes": ["rgb_array"], "render_fps": 30}`.
        num_players: players of a game.
        simultaneous: in a game, everybody moves at once; actions are then [N, num_players].
        player_names: names of the players in PettingZoo; "player_0", ... when empty.
        reward_shape: () for one number; (k,) for k objectives; games give (num_players,).
        pass_action: of a game, the action that alone is allowed to who does not act; None for none.
        on_illegal: what an action that the mask forbids does: "terminate" the episode of everybody with the penalty, or
            "replace" it by `pass_action` where that is allowed, else by an allowed action drawn from the game's key; only the
            culprit is paid the penalty then, and the game goes on.
        max_episode_steps: default time limit in steps, applied by the interfaces; None for none.
        lasting: parts of the observation that stay the same during an episode: interfaces may hand out one tensor for all of
            its steps.
        reset_options: names that `reset(options=...)` understands.
        observation_space: of one row; numpy types equal to the types of the tensors that `observe` gives.
        action_space: of one row and player, Discrete (from 0) or Box.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}
    num_players: int = 1
    simultaneous: bool = False
    player_names: tuple[str, ...] = ()
    reward_shape: tuple[int, ...] = ()
    pass_action: int | None = None
    on_illegal: str = "terminate"
    max_episode_steps: int | None = None
    lasting: tuple[str, ...] = ()
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]

    def __init__(self, *, device: torch.device | str = "cpu", dtype: torch.dtype | str = torch.float32) -> None:
        """Choose where and in which precision to compute.

        Args:
            device: a torch device.
            dtype: float32 or float64.

        Raises:
            UsageError: the device does not exist here, or the type is another one.
        """
        self.device = parse_device(device)
        self.dtype = parse_dtype(dtype)

    @property
    def numpy_dtype(self) -> Any:
        """The numpy type that equals `dtype`."""
        return np.float64 if self.dtype == torch.float64 else np.float32

    @abstractmethod
    def reset(self, keys: Tensor, options: dict[str, Any] | None = None) -> Any:
        """Start an episode for each key, [N, 2] int64; return the state, with `key` as given and `t` zero.

        Raises:
            UsageError: an option is unknown or malformed.
        """

    @abstractmethod
    def step(self, state: Any, action: Tensor) -> tuple[Any, Tensor, Tensor]:
        """Act in every row; the new state has `t` one higher. Survives `torch.compile(fullgraph=True)`.

        The interfaces pass allowed actions only. They may step a row whose episode has ended; it must not fail there, and
        its result is thrown away.

        Args:
            state: the state before.
            action: [N] int64 or [N, ...] float of `dtype`; [N, num_players] where players move at once, of which those count
                who act (`acting`).

        Returns:
            The state after, the reward [N] (or [N, k]; [N, num_players] for games) and terminated [N] bool.
        """

    @abstractmethod
    def observe(self, state: Any, player: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """Return what a player sees, [N, ...]; `player` is [N] int64, None for the one to move."""

    def mask(self, state: Any, player: Tensor | None = None) -> Tensor | None:
        """Return the allowed actions, [N, A] bool; None when everything is always allowed."""
        return None

    def illegal_reward(self, state: Any) -> Tensor:
        """Return the reward of an action that the mask forbids, [N] float, given to the one who acted."""
        return -torch.ones_like(state.t, dtype=torch.float32)

    def info(self, state: Any) -> dict[str, Tensor]:
        """Return facts about the rows, batch first, that are no part of the observation."""
        return {}

    def player(self, state: Any) -> Tensor:
        """Return whose turn it is, [N] int64."""
        return torch.zeros_like(state.t)

    def acting(self, state: Any) -> Tensor:
        """Return who acts now, [N, num_players] bool: the one to move, or everybody where all move at once."""
        if self.simultaneous:
            return torch.ones((state.t.shape[0], self.num_players), dtype=torch.bool, device=state.t.device)
        return self.player(state)[:, None] == torch.arange(self.num_players, device=state.t.device)

    def observe_all(self, state: Any) -> Tensor | dict[str, Tensor]:
        """Return what each player sees, [N, num_players, ...]."""
        seen = [self.observe(state, torch.full_like(state.t, player)) for player in range(self.num_players)]
        if isinstance(seen[0], dict):
            return {name: torch.stack([one[name] for one in seen], 1) for name in seen[0]}  # type: ignore[index]
        return torch.stack(seen, 1)  # type: ignore[arg-type]

    def render(self, state: Any, i: int) -> np.ndarray:
        """Draw row i as [H, W, 3] uint8."""
        raise UsageError(f"{type(self).__name__} has no pictures; its render modes are {self.metadata['render_modes']}")

    def render_text(self, state: Any, i: int) -> str:
        """Write row i as text."""
        raise UsageError(
            f"{type(self).__name__} has no text form; its render modes are {self.metadata['render_modes']}"
        )


def _find(path: str) -> Any:
    module, _, attribute = path.partition(":")
    if not attribute:
        raise UsageError(f"a task is named 'module:Class', got {path!r}")
    return getattr(import_module(module), attribute)


def option_names(cls: type[TensorEnv]) -> set[str]:
    """Collect the keyword arguments of a class, and of its bases as far as it passes `**options` on."""
    names: set[str] = set()
    for owner in cls.__mro__:
        if "__init__" in vars(owner):
            parameters = inspect.signature(owner.__init__).parameters.values()  # type: ignore[misc]
            names |= {item.name for item in parameters if item.kind is item.KEYWORD_ONLY}
            if all(item.kind is not item.VAR_KEYWORD for item in parameters):
                break
    return names


def load_task(tensor_env: str | type[TensorEnv] | TensorEnv, **options: Any) -> TensorEnv:
    """Make a task from its class, its name "module:Class", or take one that is made.

    Args:
        tensor_env: the task.
        options: the task's own keyword arguments.

    Raises:
        UsageError: the task does not know an option; the nearest one is suggested.
    """
    found = _find(tensor_env) if isinstance(tensor_env, str) else tensor_env
    if isinstance(found, TensorEnv):
        if options:
            raise UsageError(
                f"the task is made already, so its options cannot be set: {sorted(options)}; give its class instead"
            )
        return found
    allowed = option_names(found)
    for name in options:
        if name not in allowed:
            raise unknown_name(f"option of {found.__name__}", name, allowed)
    task: TensorEnv = found(**options)
    return task
