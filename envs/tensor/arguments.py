"""Arguments that environments of every family take, read in one place."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from polyathlon.envs.errors import UsageError, unknown_name

# MuJoCo's mjMAXVAL: beyond it MuJoCo takes a control for an error and puts 0 in its place; squares of it are finite
LARGEST_ACTION = 1e10


def read_options(given: Any) -> dict[str, Any]:
    """Return the options of a reset as a dict.

    Raises:
        UsageError: they are no dict with names as keys.
    """
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise UsageError(f"reset takes options as a dict of names and values, or None, got {str(given)[:80]!r}")
    return given


def parse_autoreset(given: AutoresetMode | str) -> AutoresetMode:
    """Take Gymnasium's autoreset mode, its value ("SameStep") or its name, in letters of either case.

    Raises:
        UsageError: there is no such mode.
    """
    for mode in AutoresetMode:
        if given is mode or str(given).lower() in (mode.value.lower(), mode.name.lower()):
            return mode
    raise unknown_name("autoreset mode", str(given), [mode.name for mode in AutoresetMode])


def check_action(action: np.ndarray) -> None:
    """Refuse numbers of an action that no task can act by.

    Args:
        action: [A], or [N, A] for N rows.

    Raises:
        UsageError: one of them is NaN, or larger than `LARGEST_ACTION`; the message names the rows.
    """
    right = np.abs(action) <= LARGEST_ACTION
    if not right.all():
        rows = np.flatnonzero(~right.all(1))[:8].tolist() if action.ndim == 2 else None
        where = "the action is" if rows is None else f"the actions of rows {rows} are"
        raise UsageError(f"{where} NaN, infinite or larger than {LARGEST_ACTION:g}; give finite numbers")
