"""Recipes in which some tokens count more than others, or not at all."""

from __future__ import annotations

from polyathlon.agents.parts.wiring import Noise, part

from .group_relative import GROUPS, TO_REFERENCE
from .normalised import HIGHER
from .records import Recipe

DIFFERING = part("collectors:Groups", group_size=8, dynamic_sampling=10)
GROUPED = part("advantages:group_advantage", center="group", scale="group")

ROWS = (
    Recipe(
        "clip_cov",
        "grpo that leaves a few tokens of large covariance of advantage and log-probability out of the update",
        "Cui et al. 2025, Clip-Cov, arXiv 2505.22617",
        loss=part("surrogates:ppo_surrogate", clip_low=1.0, clip_high=1.0),
        collect=DIFFERING,
        advantage=GROUPED,
        weights=(part("token_weights:clip_cov_mask", ratio=2e-4, low=1.0, high=5.0),),
        penalties=(TO_REFERENCE,),
        noise=(("choice", Noise("uniform", ("rows", "tokens"))),),
        old_logp="read",
    ),
    Recipe(
        "kl_cov",
        "unclipped grpo that holds the tokens of the largest covariance of advantage and log-probability back",
        "Cui et al. 2025, KL-Cov, arXiv 2505.22617",
        loss=part("token_weights:kl_cov_surrogate", k_percent=0.2, kl_cov_coef=1.0),
        collect=DIFFERING,
        advantage=GROUPED,
        penalties=(TO_REFERENCE,),
        old_logp="read",
    ),
    Recipe(
        "forking_tokens",
        "dapo whose gradient comes from the fifth of the tokens with the highest entropy",
        "Wang et al. 2025, Beyond the 80/20 Rule, arXiv 2506.01939",
        loss=HIGHER,
        collect=part("collectors:Groups", group_size=16, dynamic_sampling=10),
        rewards=(part("response_filters:overlong", overlong_buffer=4),),
        advantage=GROUPED,
        weights=(part("token_weights:entropy_top_mask", rho=0.2),),
        denominator="kept",
        penalties=(TO_REFERENCE,),
    ),
    Recipe(
        "tw_grpo",
        "grpo that weighs places by how far the distributions of a group's answers differ there",
        "Dang et al. 2025, TW-GRPO, arXiv 2505.24718",
        loss=part("surrogates:ppo_surrogate", clip_low=0.2, clip_high=0.2),
        collect=GROUPS,
        advantage=part("advantages:group_advantage", center="group", scale="group", eps=1e-4),
        weights=(part("token_weights:divergence_weights", alpha=1.7),),
        penalties=(TO_REFERENCE,),
        max_grad_norm=20.0,
    ),
)
