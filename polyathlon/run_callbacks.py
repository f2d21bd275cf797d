"""Callbacks of `polyathlon.train`: checkpoints between rollouts, a polite end."""

from __future__ import annotations

import time
import warnings

from stable_baselines3.common.callbacks import BaseCallback

from polyathlon.agents.base import Agent
from polyathlon.envs.errors import UsageError

from .run_folder import RunFolder

SECONDS_BETWEEN_CHECKPOINTS = 60.0


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after the run was saved."""


class RunCallback(BaseCallback):
    """Write checkpoints between rollouts, where the agent's state is whole, and stop there after Ctrl-C.

    Args:
        folder: where to write; None only stops.
        every: steps between two checkpoints; None goes by the clock, once a minute.
    """

    def __init__(self, folder: RunFolder | None, every: int | None) -> None:
        super().__init__()
        self.folder, self.every = folder, every
        self.should_stop = False
        self._saved_step, self._saved_time = 0, time.monotonic()

    def _on_training_start(self) -> None:
        self._saved_step, self._saved_time = self.model.num_timesteps, time.monotonic()

    def _is_due(self) -> bool:
        if self.every is not None:
            return self.model.num_timesteps - self._saved_step >= self.every
        is_new = self.model.num_timesteps > self._saved_step
        return is_new and time.monotonic() - self._saved_time >= SECONDS_BETWEEN_CHECKPOINTS

    def _on_rollout_start(self) -> None:
        if self.folder is not None and (self.should_stop or self._is_due()):
            assert isinstance(self.model, Agent)
            self._save(self.folder, self.model)
            self._saved_step, self._saved_time = self.model.num_timesteps, time.monotonic()
        if self.should_stop:
            saved = "" if self.folder is None else f"; saved in {self.folder.path}, --resume goes on"
            raise Interrupted(f"at step {self.model.num_timesteps}{saved}")

    def _save(self, folder: RunFolder, agent: Agent) -> None:
        try:
            folder.save(agent)
        except OSError as error:
            if self.should_stop:
                raise UsageError(folder.unwritable(error)) from error
            warnings.warn(f"{folder.unwritable(error)}; the run goes on and tries again", stacklevel=2)

    def _on_step(self) -> bool:
        return True
