"""Recipes that compare the answers to one prompt, without a critic."""

from __future__ import annotations

from polyathlon.agents.parts.wiring import part

from .records import Penalty, Recipe

CLIPPED = part("surrogates:ppo_surrogate", clip_low=0.2, clip_high=0.2, dual_clip=None)
TO_REFERENCE = Penalty("kl", 0.0, part("divergences:kl_token", kind="k3", ref_logp="@reference_logp"))
GROUPS = part("collectors:Groups", group_size=8, dynamic_sampling=0)

ROWS = (
    Recipe(
        "reinforce",
        "policy gradient with the batch's mean reward as the baseline",
        "Williams 1992",
        loss=CLIPPED,
        collect=part("collectors:Groups", group_size=1, dynamic_sampling=0),
        advantage=part("advantages:group_advantage", center="batch", scale="none"),
        penalties=(TO_REFERENCE,),
        aggregation="seq-mean-token-sum",
    ),
    Recipe(
        "rloo",
        "baseline of each response is the mean of the others in its group",
        "Ahmadian et al. 2024, arXiv 2402.14740",
        loss=CLIPPED,
        collect=GROUPS,
        advantage=part("advantages:group_advantage", center="loo", scale="none"),
        penalties=(TO_REFERENCE,),
        aggregation="seq-mean-token-sum",
    ),
    Recipe(
        "grpo",
        "rewards centred and scaled within a group",
        "Shao et al. 2024, arXiv 2402.03300",
        loss=CLIPPED,
        collect=GROUPS,
        advantage=part("advantages:group_advantage", center="group", scale="group"),
        penalties=(TO_REFERENCE,),
        aggregation="seq-mean-token-mean",
    ),
    Recipe(
        "dr_grpo",
        "grpo without the division by the group's deviation and by the response's length",
        "Liu et al. 2025, arXiv 2503.20783",
        loss=CLIPPED,
        collect=GROUPS,
        advantage=part("advantages:group_advantage", center="group", scale="none"),
        penalties=(TO_REFERENCE,),
        aggregation="seq-mean-token-sum-norm",
    ),
    Recipe(
        "dapo",
        "grpo with a higher upper clip, groups that differ, a token mean and soft punishment of length",
        "Yu et al. 2025, arXiv 2503.14476",
        loss=part("surrogates:ppo_surrogate", clip_low=0.2, clip_high=0.28, dual_clip=10.0),
        collect=part("collectors:Groups", group_size=8, dynamic_sampling=10),
        rewards=(part("response_filters:overlong", overlong_buffer=4),),
        advantage=part("advantages:group_advantage", center="group", scale="group"),
        penalties=(TO_REFERENCE,),
    ),
)
