"""Minibatches of which a fixed share comes from a dataset and the rest from what the agent saw itself."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from .replay import Replay, Transitions


def symmetric_sample(
    online: Replay, offline: Replay, batch_size: int, offline_ratio: float, generator: torch.Generator
) -> Transitions:
    """Draw transitions evenly from each of two memories (Ball et al. 2023, RLPD, section 4.1, where the share is a half).

    Args:
        online: what the agent saw; empty leaves all to the dataset.
        offline: the dataset; empty leaves all to the agent's own.
        batch_size: transitions B.
        offline_ratio: share of the dataset's; they come first.
        generator: source of the draw.
    """
    number = round(offline_ratio * batch_size) if online.size and offline.size else batch_size * bool(offline.size)
    counts = ((offline, number), (online, batch_size - number))
    parts = [memory.sample(count, generator) for memory, count in counts if count]
    return parts[0] if len(parts) == 1 else tree_map(_joined, *parts)


def _joined(*columns: Tensor | None) -> Tensor | None:
    """Join tensors; what no sampler has made stays None."""
    return None if columns[0] is None else torch.cat(columns)  # type: ignore[arg-type]
