"""Recipes that differ in how rewards are centred and scaled: over groups, over tokens, over the prompts of a batch."""

from __future__ import annotations

from polyathlon.agents.parts.wiring import part

from .group_relative import CLIPPED, GROUPS, TO_REFERENCE
from .records import Penalty, Recipe

HIGHER = part("surrogates:ppo_surrogate", clip_low=0.2, clip_high=0.28, dual_clip=10.0)
BETA = part("advantages:beta_norm_advantage", r_min=0.0, r_max=1.0)

ROWS = (
    Recipe(
        "reinforce_pp",
        "rewards whitened over all tokens of the batch",
        "Hu et al. 2025, REINFORCE++, arXiv 2501.03262",
        loss=CLIPPED,
        collect=part("collectors:Groups", group_size=1, dynamic_sampling=0),
        advantage=part("advantages:whitened_advantage", center="none"),
        penalties=(TO_REFERENCE,),
    ),
    Recipe(
        "reinforce_pp_baseline",
        "rewards less their group's mean, whitened over all tokens of the batch",
        "Hu et al. 2025, REINFORCE++ with a baseline, arXiv 2501.03262",
        loss=CLIPPED,
        collect=GROUPS,
        advantage=part("advantages:whitened_advantage", center="group"),
        penalties=(Penalty("kl", 0.0, part("divergences:kl_token", kind="k2", ref_logp="@reference_logp")),),
    ),
    Recipe(
        "overlong_filtering",
        "dapo whose answers that a limit cut teach nothing, instead of costing",
        "Yu et al. 2025, section 3.4, arXiv 2503.14476",
        loss=HIGHER,
        collect=part("collectors:Groups", group_size=16, dynamic_sampling=10),
        keep=part("response_filters:mask_truncated"),
        denominator="kept",
        advantage=part("advantages:group_advantage", center="group", scale="group"),
        penalties=(TO_REFERENCE,),
    ),
    Recipe(
        "bnpo",
        "rewards less their group's mean, divided by the density of a Beta distribution of the prompts' accuracies",
        "Xiao et al. 2025, arXiv 2506.02864",
        loss=HIGHER,
        collect=part("collectors:Groups", group_size=16, dynamic_sampling=0),
        advantage=BETA,
        penalties=(TO_REFERENCE,),
        aggregation="seq-mean-token-sum",
    ),
    Recipe(
        "bnpo_components",
        "bnpo of each part of the verdict by itself, averaged (advantage decomposition)",
        "Xiao et al. 2025, section 3.3, arXiv 2506.02864",
        loss=HIGHER,
        collect=part("collectors:Groups", group_size=16, dynamic_sampling=0),
        advantage=part("reward_components:ComponentAdvantage", advantage=BETA, weights=None),
        penalties=(TO_REFERENCE,),
        aggregation="seq-mean-token-sum",
    ),
    Recipe(
        "lite_ppo",
        "rewards less their group's mean, divided by the batch's deviation, and a token mean: two tricks and no more",
        "Liu et al. 2025, Tricks or Traps?, arXiv 2508.08221",
        loss=CLIPPED,
        collect=GROUPS,
        advantage=part("advantages:group_advantage", center="group", scale="batch"),
        penalties=(TO_REFERENCE,),
    ),
    Recipe(
        "gspo",
        "grpo with one clipped ratio a sequence, normalised by its length",
        "Zheng et al. 2025, arXiv 2507.18071",
        loss=part("surrogates:ppo_surrogate", clip_low=3e-4, clip_high=4e-4, level="sequence"),
        collect=GROUPS,
        advantage=part("advantages:group_advantage", center="group", scale="group"),
        penalties=(TO_REFERENCE,),
        aggregation="seq-mean-token-mean",
    ),
)
