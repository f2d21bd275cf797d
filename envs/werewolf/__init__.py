"""Werewolf (Mafia): a game of hidden roles, in turns, in parallel and on tensors, with observations in numbers or words.

`env` and `parallel_env` make PettingZoo environments on an event log; `Werewolf` is the same game as a `TensorEnv`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from polyathlon.envs.errors import require

from .config import SUITES, WerewolfConfig, make_config, role_table, secret_mafia, werewolf_arena
from .core import Werewolf

if TYPE_CHECKING:
    from .aec import WerewolfAEC
    from .parallel import WerewolfParallel

__all__ = [
    "SUITES",
    "Werewolf",
    "WerewolfConfig",
    "env",
    "make_config",
    "parallel_env",
    "role_table",
    "secret_mafia",
    "werewolf_arena",
]

Rules = WerewolfConfig | Mapping[str, Any] | str | None


def env(
    num_players: int | None = None,
    config: Rules = None,
    text: bool = False,
    action: str = "discrete",
    observation: str | None = None,
    history: int = 3,
    dead_wait: bool = True,
    quirks: bool = False,
    render_mode: str | None = None,
) -> WerewolfAEC:
    """Make a game in PettingZoo's turn-based form.

    Args:
        num_players: picks a role table, see `role_table`; None: what `config` says, else 7.
        config: rules that differ from those of `WerewolfConfig`, or the name of another suite's, see `make_config`.
        text: observations are words.
        action: "discrete", or "text": actions are words too, which are parsed.
        observation: "dict" or "vector", the form of observations in numbers.
        history: rounds of votes and speeches that observations in numbers show.
        dead_wait: the dead stay in `agents` until the end and get the final reward; else they leave at once.
        quirks: reproduce the oddities of a suite named in `config`.
        render_mode: "ansi", a transcript, or "html", a page.

    Raises:
        UsageError: an argument is outside what is allowed.
    """
    require("pettingzoo", "all")
    from .aec import WerewolfAEC
    from .table import make_table

    return WerewolfAEC(
        make_table(num_players, config, quirks, text, action, observation, history, dead_wait, render_mode)
    )


def parallel_env(
    num_players: int | None = None,
    config: Rules = None,
    text: bool = False,
    action: str = "discrete",
    observation: str | None = None,
    history: int = 3,
    dead_wait: bool = True,
    quirks: bool = False,
    render_mode: str | None = None,
) -> WerewolfParallel:
    """Make a game in PettingZoo's parallel form; see `env`.

    Raises:
        UsageError: an argument is outside what is allowed.
    """
    require("pettingzoo", "all")
    from .parallel import WerewolfParallel
    from .table import make_table

    return WerewolfParallel(
        make_table(num_players, config, quirks, text, action, observation, history, dead_wait, render_mode)
    )
