"""The asymmetric travelling salesman problem, whose distances are given."""

from __future__ import annotations

import torch
from torch import Tensor

from polyathlon.agents.construction.invariant_features import (
    MOST_OPEN,
    NUM_NEAREST,
    InvariantFeatures,
    capped_log,
    count_open,
    mean_of_open,
    nearest_distances,
)
from polyathlon.agents.construction.table_rows import FAR, Observation
from polyathlon.envs.combinatorial.node_kinds import OPEN, PADDING

from .kit import ProblemKit, register_problem
from .plane import nearest_of
from .tours import tour_choices, tour_piece


class MatrixFeatures:
    """Features of nodes that are known by distances; the unit is the mean distance from the origin to the kept rows."""

    def sizes(self, num_sectors: int) -> tuple[int, int, int]:
        """Return the numbers of features of a row, of the instance and of a pair of rows."""
        return 8 + 2 * NUM_NEAREST, 2, 4

    def __call__(
        self, obs: Observation, kept: Observation, index: Tensor | None, num_sectors: int
    ) -> InvariantFeatures:
        """Return the features of the kept rows."""
        is_padding, num_open = kept["kind"] == PADDING, count_open(obs)
        distance = kept["distances"]
        unit = mean_of_open(distance[:, 0], is_padding)
        distance = distance / unit.unsqueeze(2)
        back = distance.transpose(1, 2)
        ends = torch.stack((distance[:, 0], distance[:, :, 0], distance[:, :, 1], distance[:, 1]), dim=2)
        rows = torch.cat(
            [ends, capped_log(ends), nearest_distances(distance, is_padding), nearest_distances(back, is_padding)],
            dim=2,
        )
        whole = torch.cat([num_open.clamp(max=MOST_OPEN).log(), capped_log(distance[:, 0, 1:2])], dim=1)
        return InvariantFeatures(
            rows, whole, [distance, torch.log(distance + 0.1), back, torch.log(back + 0.1)], is_padding
        )


def nearest_by_distance(obs: Observation, k: int) -> Tensor:
    """Return [B, min(k, R)] origin, destination and the open rows nearest from the origin, see `ProblemKit.neighbours`."""
    return nearest_of(obs["nodes"][:, 2:, 0].masked_fill(obs["kind"][:, 2:] != OPEN, FAR), k)


register_problem(
    ProblemKit(
        task_class="polyathlon.envs.combinatorial.atsp:ATSP",
        geometry="matrix",
        num_columns=2,
        instance_entry="distances",
        features=MatrixFeatures(),
        expert_choices=tour_choices,
        sub_instance=tour_piece,
        neighbours=nearest_by_distance,
        is_tour=True,
        visits_all=True,
    )
)
