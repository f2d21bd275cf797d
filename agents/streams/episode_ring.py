"""Returns and lengths of episodes, kept where the environments run and read from there seldom."""

from __future__ import annotations

import torch
from torch import Tensor


class EpisodeRing:
    """Counts the running episodes of N rows and notes those that finish.

    On the processor a finished episode is known after its step. An accelerator would have to be waited for in each step to
    know whether there is one; so its steps are kept in a ring there, which is read when `every` of them are in it.

    Args:
        num_envs: number of rows N.
        device: where rewards and ends are.
        every: steps in the ring.

    Attributes:
        returns: [N] float64 of the running episodes.
        lengths: [N] int64 of the running episodes.
        finished: (return, length) of those that were read and nobody took, in the order of steps and rows.
    """

    def __init__(self, num_envs: int, device: torch.device, every: int) -> None:
        self.returns = torch.zeros(num_envs, dtype=torch.float64, device=device)
        self.lengths = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self.finished: list[tuple[float, int]] = []
        self.every, self._place, self._read = every, 0, 0
        self._last: dict[int, tuple[float, int]] = {}
        self._is_asked = device.type == "cpu"
        self._steps = torch.zeros(0)  # on an accelerator, from the first step on: [every, 3, N] done, return, length

    def start(self) -> None:
        """Begin new episodes in all rows; those that ran did not finish."""
        self.returns.zero_()
        self.lengths.zero_()
        self._place, self._read, self._last = 0, 0, {}

    def add(self, reward: Tensor, done: Tensor) -> None:
        """Count a step: reward [N] or [N, k], whose sum counts, and done [N] bool."""
        self.returns += reward if reward.dim() == 1 else reward.sum(1)
        self.lengths += 1
        if self._is_asked:
            self._last = {}
            if not bool(done.any()):
                return
            rows = done.nonzero()[:, 0].tolist()
            self._last = dict(zip(rows, zip(self.returns[done].tolist(), self.lengths[done].tolist())))
            self.finished += self._last.values()
        else:
            if not len(self._steps):
                self._steps = self.returns.new_zeros(self.every, 3, len(self.returns))
            if self._place == self.every:
                self._place = self._read = 0
            torch.stack([done.double(), self.returns, self.lengths.double()], out=self._steps[self._place])
            self._place += 1
            if self._place == self.every:
                self.read()
        self.returns.masked_fill_(done, 0.0)
        self.lengths.masked_fill_(done, 0)

    def read(self) -> bool:
        """Read what finished since the last reading, at the cost of one wait; return whether there was anything to read."""
        if self._read == self._place:
            return False
        self.finished += [each for _, each in _finished(self._steps[self._read : self._place])]
        self._read = self._place
        return True

    def last(self) -> dict[int, tuple[float, int]]:
        """Return row -> (return, length) of the episodes that the last step finished; an accelerator is waited for."""
        if self._is_asked:
            return self._last
        return dict(_finished(self._steps[self._place - 1 : self._place])) if self._place else {}


def _finished(steps: Tensor) -> list[tuple[int, tuple[float, int]]]:
    """Return (row, (return, length)) of each end in steps [K, 3, N] of ends, returns and lengths."""
    done, returns, lengths = steps.cpu().numpy().transpose(1, 0, 2)
    places = list(zip(*done.nonzero()))
    return [(int(row), (float(returns[t, row]), int(lengths[t, row]))) for t, row in places]
