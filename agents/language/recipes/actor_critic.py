"""Recipes with a critic that values tokens."""

from __future__ import annotations

from polyathlon.agents.parts.wiring import part

from .group_relative import CLIPPED, TO_REFERENCE
from .records import Penalty, Recipe

ROWS = (
    Recipe(
        "ppo",
        "a critic values every token",
        "Schulman et al. 2017, arXiv 1707.06347",
        loss=CLIPPED,
        collect=part("collectors:Groups", group_size=1, dynamic_sampling=0),
        advantage=part("token_returns:token_gae", gamma=1.0, gae_lambda=0.95, whiten=True),
        penalties=(TO_REFERENCE, Penalty("vf", 0.5, part("surrogates:clipped_value_loss", clip_range_vf=0.5))),
        n_epochs=2,
        minibatches=2,
    ),
)
