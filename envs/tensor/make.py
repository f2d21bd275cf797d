"""Make a tensor task as a Gymnasium, vector, Stable-Baselines3 or PettingZoo environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from gymnasium.vector import AutoresetMode

from polyathlon.envs.errors import UsageError, require

from .base import TensorEnv, load_task
from .gym_env import TensorGymEnv
from .seat_env import SeatEnv
from .seats import SeatVectorEnv
from .vector_env import TensorVectorEnv

if TYPE_CHECKING:
    from .pettingzoo import TensorAECEnv, TensorParallelEnv
    from .sb3 import SB3VecEnv

Task = str | type[TensorEnv] | TensorEnv


def _refuse_seat(seat: Any) -> None:
    if seat is not None:
        raise UsageError(f"seat={seat!r} needs an opponent for the other seats: give opponent='random', or another one")


def make_scalar(
    tensor_env: Task,
    render_mode: str | None = None,
    on_illegal: str | None = None,
    max_episode_steps: int | None = None,
    opponent: Any = None,
    seat: str | int | None = None,
    **options: Any,
) -> TensorGymEnv | SeatEnv:
    """Make a task as a Gymnasium environment.

    Args:
        tensor_env: the task, its class, or "module:Class".
        render_mode: a render mode of the task.
        on_illegal: None, "terminate" or "raise", see `TensorGymEnv`.
        max_episode_steps: steps after which an episode is cut; None for the task's own limit.
        opponent: of a game, who plays the other seats (see `SeatEnv`): the environment is then one seat. None: the agent moves for
            every player.
        seat: "random" (what None means) or the number of the seat, with an opponent.
        options: the task's own options, and `device` and `dtype`.

    Raises:
        UsageError: an argument is outside what is allowed.
    """
    if opponent is not None:
        task = load_task(tensor_env, **options)
        chosen = "random" if seat is None else seat
        return SeatEnv(task, opponent, chosen, render_mode, max_episode_steps)
    _refuse_seat(seat)
    return TensorGymEnv(load_task(tensor_env, **options), render_mode, on_illegal, max_episode_steps)


def make_vector(
    tensor_env: Task,
    num_envs: int = 1,
    device: torch.device | str = "cpu",
    output: str = "numpy",
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    max_episode_steps: int | None = None,
    render_mode: str | None = None,
    compile: bool = False,
    view: str = "mover",
    opponent: Any = None,
    seat: str | int | None = None,
    **options: Any,
) -> TensorVectorEnv | SeatVectorEnv:
    """Make a task as a Gymnasium vector environment.

    Args:
        tensor_env: the task, its class, or "module:Class".
        num_envs: number of environments N.
        device: where the tensors live; of a task that is made already, its own.
        output: "numpy", or "torch" for tensors that stay on the device.
        autoreset_mode: when finished rows start again.
        max_episode_steps: steps after which an episode is cut; None for the task's own limit.
        render_mode: a render mode of the task.
        compile: run the whole step as one graph of `torch.compile`: a pause of seconds at first, then faster.
        view: "mover" or "all", see `TensorVectorEnv`.
        opponent: of a game, who plays the other seats (see `SeatVectorEnv`): the rows are then one seat each.
        seat: "random" (what None means) or the number of the seat, with an opponent.
        options: the task's own options, and `dtype`.

    Raises:
        UsageError: an argument is outside what is allowed.
    """
    if not isinstance(tensor_env, TensorEnv):
        options["device"] = device
    task = load_task(tensor_env, **options)
    if opponent is not None:
        chosen = "random" if seat is None else seat
        return SeatVectorEnv(task, num_envs, opponent, chosen, output, autoreset_mode, max_episode_steps, render_mode)
    _refuse_seat(seat)
    return TensorVectorEnv(task, num_envs, output, autoreset_mode, max_episode_steps, render_mode, compile, view)


def make_sb3(tensor_env: Task | TensorVectorEnv, num_envs: int = 1, **options: Any) -> SB3VecEnv:
    """Make a task as a Stable-Baselines3 vector environment.

    Args:
        tensor_env: the task, its class, "module:Class", or a vector environment in SAME_STEP mode.
        num_envs: number of environments; of a vector environment, its own.
        options: as for `make_vector`.

    Raises:
        UsageError: an argument is outside what is allowed.
    """
    from .sb3 import SB3VecEnv

    if not isinstance(tensor_env, TensorVectorEnv):
        rows = make_vector(tensor_env, num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **options)
        return SB3VecEnv(rows)
    return SB3VecEnv(tensor_env)


def make_aec(
    tensor_env: Task, render_mode: str | None = None, max_episode_steps: int | None = None, **options: Any
) -> TensorAECEnv:
    """Make a game as a PettingZoo environment in turns.

    Args:
        tensor_env: the task, its class, or "module:Class".
        render_mode: a render mode of the task.
        max_episode_steps: steps after which a game is cut; None for the task's own limit.
        options: the task's own options, and `device` and `dtype`.

    Raises:
        UsageError: the task has one player, or an argument is outside what is allowed.
    """
    require("pettingzoo", "all")
    from .pettingzoo import TensorAECEnv

    return TensorAECEnv(load_task(tensor_env, **options), render_mode, max_episode_steps)


def make_parallel(
    tensor_env: Task, render_mode: str | None = None, max_episode_steps: int | None = None, **options: Any
) -> TensorParallelEnv:
    """Make a game as a PettingZoo environment in which all act at once; see `make_aec`.

    Raises:
        UsageError: the task has one player, or an argument is outside what is allowed.
    """
    require("pettingzoo", "all")
    from .pettingzoo import TensorParallelEnv

    return TensorParallelEnv(load_task(tensor_env, **options), render_mode, max_episode_steps)
