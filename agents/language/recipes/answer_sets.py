"""Recipes whose loss is one of all answers to a prompt together, without a surrogate a token."""

from __future__ import annotations

from polyathlon.agents.parts.wiring import part

from .group_relative import GROUPS
from .records import Recipe

ROWS = (
    Recipe(
        "disco",
        "right answers above the likeliest wrong ones, within a trust region; kind='L-ratio' (tau=1) scores by ratios",
        "Li et al. 2025, arXiv 2505.12366",
        loss=part("discriminative:disco", kind="logL", tau=10.0, beta=1e3, delta=1e-4),
        collect=GROUPS,
    ),
    Recipe(
        "disco_b",
        "right answers above the mean of wrong ones, within a trust region; kind='L-ratio' scores by ratios",
        "Li et al. 2025, arXiv 2505.12366",
        loss=part("discriminative:disco", kind="logL", tau=None, beta=1e3, delta=1e-4),
        collect=GROUPS,
    ),
)
