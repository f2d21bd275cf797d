"""The travelling salesman problem."""

from __future__ import annotations

from .kit import ProblemKit, register_problem
from .plane import PlaneFeatures, nearest_in_plane
from .tours import tour_choices, tour_piece

register_problem(
    ProblemKit(
        task_class="polyathlon.envs.combinatorial.tsp:TSP",
        geometry="plane",
        num_columns=2,
        instance_entry="xy",
        features=PlaneFeatures(),
        expert_choices=tour_choices,
        sub_instance=tour_piece,
        neighbours=nearest_in_plane,
        default_neighbours=20,
        is_tour=True,
        visits_all=True,
        is_symmetric=True,
    )
)
