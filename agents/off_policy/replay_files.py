"""The replay memory in a file, by SB3's words, and under SB3's `VecNormalize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stable_baselines3.common.vec_env import VecNormalize, unwrap_vec_normalize

from polyathlon import checkpoints
from polyathlon.agents.parts.replay import Replay
from polyathlon.envs.errors import UsageError

KIND = "replay buffer"


def vec_normalize_of(env: Any) -> VecNormalize | None:
    """Return the `VecNormalize` around an environment.

    Raises:
        UsageError: another wrapper stands around it, so that what the agent sees cannot be normalised anew.
    """
    found = None if env is None else unwrap_vec_normalize(env)
    if found is not None and found is not env:
        raise UsageError(
            f"VecNormalize must be the outermost wrapper, here {type(env).__name__} stands around it: the replay buffer "
            "keeps raw observations and normalises them when they are sampled"
        )
    return found


class ReplayFiles:
    """Part of an off-policy agent: `replay_buffer`, and writing and reading it.

    Attributes:
        replay: the memory; None before learning starts.
    """

    replay: Replay | None
    _ready: Any

    @property
    def replay_buffer(self) -> Replay | None:
        """The memory under SB3's name; None before learning starts."""
        return self.replay

    def save_replay_buffer(self, path: str | Path) -> None:
        """Write the memory into a file; `CheckpointCallback(save_replay_buffer=True)` does.

        Args:
            path: the file; ".pkl" is added where it has no ending, as SB3 does, though it is no pickle.

        Raises:
            UsageError: there is no memory yet.
        """
        if self.replay is None:
            raise UsageError("the replay buffer is not there before learning starts")
        checkpoints.save_state(self.replay.get_state(), _with_ending(path), KIND)

    def load_replay_buffer(self, path: str | Path, truncate_last_traj: bool = True) -> None:
        """Fill the memory from a file that `save_replay_buffer` wrote; reading it executes nothing.

        Args:
            path: the file.
            truncate_last_traj: take the episodes that ran when the file was written for cut there; False goes on with them, where
                the environments stand as they did.

        Raises:
            UsageError: the file is missing, damaged, no replay buffer, or of other shapes or more transitions than this one.
        """
        state = checkpoints.read_state(_with_ending(path), KIND)
        self._ready()
        assert self.replay is not None
        self.replay.set_state(state)
        if truncate_last_traj:
            self.replay.cut()


def _with_ending(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix else path.with_name(path.name + ".pkl")
