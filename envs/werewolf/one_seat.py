"""`polyathlon/Werewolf-v0`: one seat of a game, the others played by opponents, in numbers or in words."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium.vector import AutoresetMode

from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.envs.tensor.seat_env import SeatEnv
from polyathlon.envs.tensor.seats import SeatVectorEnv

from .core import Werewolf
from .words_task import WerewolfWords

ACTIONS = ("discrete", "text")


def make_scalar(
    opponent: Any = "random",
    seat: str | int = "random",
    text: bool = False,
    action: str = "discrete",
    render_mode: str | None = None,
    max_episode_steps: int | None = None,
    **options: Any,
) -> SeatEnv | WerewolfWords:
    """Make one seat of a game.

    Args:
        opponent: who plays the other seats: "random", "heuristic", the folder of an agent or a league, or a callable.
        seat: "random" or a number.
        text: with `action="text"`: a task in words, `WerewolfWords`.
        action: "discrete" or "text".
        render_mode: "ansi" or None.
        max_episode_steps: the seat's own moves after which a game is cut.
        **options: those of `Werewolf` (`num_players`, `config`, `quirks`, `ticks`, `observation`, `history`).

    Raises:
        UsageError: an argument is outside what is allowed.
    """
    _refuse_unknown(action)
    if text is not (action == "text"):
        raise UsageError(
            "Werewolf-v0 is in numbers (text=False, action='discrete') or in words (text=True, action='text'); "
            f"got text={text!r}, action={action!r}. polyathlon.envs.werewolf.env takes any mixture"
        )
    if text:
        return WerewolfWords(opponent=opponent, seat=seat, render_mode=render_mode, **options)
    return SeatEnv(Werewolf(**options), opponent, seat, render_mode, max_episode_steps)


def make_vector(
    num_envs: int = 1,
    opponent: Any = "random",
    seat: str | int = "random",
    device: torch.device | str = "cpu",
    output: str = "numpy",
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    max_episode_steps: int | None = None,
    render_mode: str | None = None,
    time_limit: float | None = None,
    **options: Any,
) -> SeatVectorEnv:
    """Make one seat in each of many games; see `make_scalar` and `SeatVectorEnv`.

    Raises:
        UsageError: an argument is outside what is allowed.
    """
    text, action = options.pop("text", False), options.pop("action", "discrete")
    _refuse_unknown(action)
    if text or action == "text":
        raise UsageError(
            "the rows of Werewolf in words are those of gym.make('polyathlon/Werewolf-v0', text=True, action='text').unwrapped.batch(n)"
        )
    task = Werewolf(device=device, **options)
    return SeatVectorEnv(
        task, num_envs, opponent, seat, output, autoreset_mode, max_episode_steps, render_mode, time_limit
    )


def _refuse_unknown(action: str) -> None:
    if action not in ACTIONS:
        raise unknown_name("kind of action", str(action), ACTIONS)
