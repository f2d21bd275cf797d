"""Recipes with another model beside the policy: one that rewards tokens, a teacher."""

from __future__ import annotations

from polyathlon.agents.parts.wiring import Schedule, part

from .group_relative import CLIPPED, GROUPS
from .records import Penalty, Recipe, SideModel
from .selected_tokens import GROUPED

PROCESS = SideModel(
    "process", loss=part("process_rewards:implicit_bce", beta=0.05), learning_rate=1e-6, max_grad_norm=10.0
)
SOLVED_AT_TIMES = part("collectors:Groups", group_size=4, dynamic_sampling=10, least_accuracy=0.2, most_accuracy=0.8)
TO_TEACHER = part("divergences:teacher_kl", kind="k2", applies="all", ref_logp="@teacher_logp")

ROWS = (
    Recipe(
        "prime",
        "a process model that learns from outcomes alone rewards single tokens, beside the outcome",
        "Cui et al. 2025, PRIME, arXiv 2502.01456",
        loss=CLIPPED,
        collect=SOLVED_AT_TIMES,
        advantage=part("process_rewards:prime_advantage", normalize=True),
        models=(PROCESS,),
    ),
    Recipe(
        "kdrl",
        "grpo drawn to a teacher at its own tokens, less and less; applies='wrong' or 'failed_groups' draws these alone",
        "Xu et al. 2025, KDRL, arXiv 2506.02208",
        loss=CLIPPED,
        collect=GROUPS,
        advantage=GROUPED,
        penalties=(Penalty("kd", Schedule("linear", 5e-3, 1e-3), TO_TEACHER),),
        models=(SideModel("teacher", start="given"),),
    ),
)
