"""Minibatches of which a fixed share comes from a dataset and the rest from what the agent saw itself."""

from __future__ import annotations

import torch
from torch import Tensor

from .replay import Replay


def symmetric_sample(
    online: Replay | None,
    offline: Replay | None,
    slices: int,
    batch_size: int,
    offline_ratio: float,
    generator: torch.Generator | None,
) -> Tensor:
    """Draw transitions evenly from each of two memories (Ball et al. 2023, RLPD, section 4.1, where the share is a half).

    Args:
        online: what the agent saw; None or empty leaves all to the dataset.
        offline: the dataset; None or empty leaves all to the agent's own.
        slices: number of minibatches U.
        batch_size: transitions B in each.
        offline_ratio: share of the dataset's in each minibatch; they come first.
        generator: source of the draw.

    Returns:
        Rows [U, B, 2 O + A + 2], as `Replay.split` names their columns.
    """
    has_online, has_offline = (memory is not None and memory.size > 0 for memory in (online, offline))
    number = round(offline_ratio * batch_size) if has_online and has_offline else batch_size * has_offline
    parts = []
    for memory, count in ((offline, number), (online, batch_size - number)):
        if count:
            assert memory is not None
            index = torch.randint(memory.size, (slices, count), generator=generator, device=memory.rows.device)
            parts.append(memory.rows[index])
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
