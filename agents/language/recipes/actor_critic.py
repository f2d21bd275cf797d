"""Recipes with a critic that values tokens."""

from __future__ import annotations

from polyathlon.agents.parts.wiring import part

from .group_relative import CLIPPED, TO_REFERENCE
from .records import Penalty, Recipe

CRITIC = Penalty("vf", 0.5, part("surrogates:clipped_value_loss", clip_range_vf=0.5))
OVER = Penalty("vf", 0.5, part("truncated:over_value_loss", value_low=0.5, value_high=0.6))

ROWS = (
    Recipe(
        "ppo",
        "a critic values every token",
        "Schulman et al. 2017, arXiv 1707.06347",
        loss=CLIPPED,
        collect=part("collectors:Groups", group_size=1, dynamic_sampling=0),
        advantage=part("token_returns:token_gae", gamma=1.0, gae_lambda=0.95, whiten=True),
        penalties=(TO_REFERENCE, CRITIC),
        n_epochs=2,
        minibatches=2,
    ),
    Recipe(
        "pf_ppo",
        "ppo on the best and the worst of five answers; ranks='best' or 'best_random' takes others",
        "Shen and Zhang 2024, PF-PPO, arXiv 2409.06957",
        loss=CLIPPED,
        collect=part("collectors:Groups", group_size=5, dynamic_sampling=0),
        keep=part("response_filters:rank_filter", ranks="best_worst"),
        advantage=part("token_returns:token_gae", gamma=1.0, gae_lambda=0.95, whiten=True),
        penalties=(TO_REFERENCE, CRITIC),
        aggregation="seq-mean-token-mean",
        n_epochs=2,
        minibatches=2,
    ),
    Recipe(
        "t_ppo",
        "ppo on windows of answers that go on in the next iteration; the critic learns from those that are over",
        "Fan et al. 2025, T-PPO, arXiv 2506.15050",
        loss=part("surrogates:ppo_surrogate", clip_low=0.2, clip_high=0.28, dual_clip=10.0),
        collect=part("collectors:WindowPool", group_size=16, window=None),
        advantage=part("truncated:egae", gamma=1.0, ignore=8),
        weights=(part("truncated:window_weight"),),
        denominator="kept",
        penalties=(OVER, Penalty("nll", 0.1, part("truncated:right_nll"))),
    ),
)
