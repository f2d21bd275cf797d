"""The data of a language agent: records, what of them is held out, and in which order they are read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from polyathlon.envs.data.records import RecordSet, order_of, records
from polyathlon.envs.errors import UsageError


class OfflineData:
    """What `data=` of an agent read.

    Args:
        source: whatever `polyathlon.records.records` takes.
        holdout: share of the prompts that is held out.
        seed: of the order.

    Attributes:
        records: the records.
        train: units to learn from, in the order of the file.
        held: units that are held out.
        description: how to open it again, as JSON; None for rows in memory.
        stored: log-probabilities of the reference, where they are kept beside the data.
    """

    def __init__(self, source: Any, holdout: float, seed: int) -> None:
        self.records: RecordSet = records(source)
        self.seed, self.holdout = seed, holdout
        self.train, self.held = self.records.split(holdout)
        if holdout and not len(self.held):
            warnings.warn(
                f"holdout={holdout}: every prompt of {self.records.rows.name} has more of its {len(self.records)} records than that share, so "
                "none is held out; give a larger holdout, or 0",
                UserWarning,
                stacklevel=2,
            )
        self.description = self.records.description
        self.stored: Any = None
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def unit(self, epoch: int, position: int) -> int:
        """Return the unit at a position of an epoch; the order depends on (seed, epoch) alone."""
        if epoch != self._epoch:
            self._epoch, self._order = epoch, order_of(len(self.train), self.seed, epoch)
        return int(self.train[self._order[position]])


def check_data(data: Any) -> Any:
    """Return `data=` of an agent in the form that files keep: a path as a text, a dict with texts.

    Raises:
        UsageError: it is no data.
    """
    if isinstance(data, Path):
        return str(data)
    if isinstance(data, Mapping) and "source" in data:
        return {**data, "source": check_data(data["source"])}
    return data


def refuse_missing_data(row: str, collector: Any, data: Any) -> None:
    """Refuse a recipe without the data that its collector reads, and data that nobody reads.

    Raises:
        UsageError: naming the recipe.
    """
    reads = getattr(collector, "check_data", None) is not None
    if data is not None and not reads:
        raise UsageError(
            f"the recipe {row!r} samples its own answers and reads no data: leave data= (--data) out, or take one that learns from records "
            "(polyathlon recipes)"
        )
    if data is None and reads:
        from .recipes import recipe_rows

        online = f"{row}_online"
        other = f"; {online} learns from its own answers" if online in [each.name for each in recipe_rows()] else ""
        raise UsageError(
            f"the recipe {row!r} learns from records: give data=FILE (--data FILE), see polyathlon.records{other}"
        )
