"""Seeds of games, and actions in the form that a game takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyathlon.envs.errors import UsageError

_MOST = np.uint64(2**62 - 1)  # NLE's seeds are C's unsigned longs; Python's int of pybind reads 63 bits


def game_seeds(seed: int, episode: int) -> tuple[int, int]:
    """Return (core, disp) of an episode: they depend on (seed, episode) alone.

    Args:
        seed: seed of the row, the environment's seed + row.
        episode: number of the episode since that seed was given.
    """
    core, disp = np.random.SeedSequence([seed, episode]).generate_state(2, np.uint64) & _MOST
    return int(core), int(disp)


def check_seed(seed: Any) -> int:
    """Return a seed as an int.

    Raises:
        UsageError: it is negative or no integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise UsageError(f"a seed is an integer from 0 to 2**63 - 1, got {seed!r}")
    return int(seed)


def fresh_seed() -> int:
    """Draw a seed from the operating system."""
    return int(np.random.SeedSequence().generate_state(1, np.uint32)[0])


def refuse_seed(task: str) -> UsageError:
    """Return the error for a seed where a task takes none."""
    return UsageError(
        f"task={task!r} takes no seed, as the NetHack Challenge does not: leave seed out, or play "
        "task='score' with actions='full' and character='@', whose episodes depend on their seeds"
    )
