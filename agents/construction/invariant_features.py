"""What is seen of a table of nodes, as features that do not depend on where the instance lies, how large it is or is turned.

What they are is said by the `Features` of each problem's kit, with what stands here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from polyathlon.envs.combinatorial.node_kinds import OPEN

from .table_rows import Observation

NUM_NEAREST = 4
MOST = 4.0  # lengths above this many units are cut
MOST_IN_LOG = 6.0  # those above this many: beyond, small training instances have nothing to teach
MOST_OPEN = 40.0
TINY = 1e-6


class InvariantFeatures(NamedTuple):
    """Features of a table of K rows.

    Attributes:
        rows: [B, K, F] features of each row.
        whole: [B, G] features of the instance.
        pairs: tensors [B, K, K], features of each pair of rows.
        is_padding: [B, K] bool.
    """

    rows: Tensor
    whole: Tensor
    pairs: list[Tensor]
    is_padding: Tensor


def count_open(obs: Observation) -> Tensor:
    """Return [B, 1] the number of open rows, at least 1, of a whole observation."""
    return (obs["kind"] == OPEN).sum(1, keepdim=True).clamp(min=1).to(obs["nodes"].dtype)


def capped_log(length: Tensor) -> Tensor:
    """Return the logarithm of lengths, cut above `MOST_IN_LOG` units and finite at 0."""
    return torch.log(length.clamp(max=MOST_IN_LOG) + 0.05)


def nearest_distances(distance: Tensor, is_padding: Tensor) -> Tensor:
    """Return [B, K, NUM_NEAREST] the distances to the nearest other rows."""
    kept = distance.shape[1]
    hidden = is_padding.unsqueeze(1) | torch.eye(kept, dtype=torch.bool, device=distance.device)
    hidden = hidden | is_padding.unsqueeze(2)
    found = distance.masked_fill(hidden, MOST).topk(min(NUM_NEAREST, kept), dim=2, largest=False).values
    return torch.nn.functional.pad(found.clamp(max=MOST), (0, NUM_NEAREST - found.shape[2]), value=MOST)


def mean_of_open(length: Tensor, is_padding: Tensor) -> Tensor:
    """Return [B, 1] the mean over the open rows, which begin in the third."""
    used = ~is_padding[:, 2:]
    return ((length[:, 2:] * used).sum(1, keepdim=True) / used.sum(1, keepdim=True).clamp(min=1)).clamp(min=TINY)
